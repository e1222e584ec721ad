#include "config/server_config.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "tests/support/case_name.h"

namespace tramontane {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

class ServerConfigTest : public testing::Test {
 protected:
  void SetUp() override {
    serve_ = add_command(app_, "serve", "Serve");
    add_server_options(*serve_, config_);
    name_environment_variables(*serve_);
  }
  void TearDown() override {
    unsetenv("TRAMONTANE_PORT");
    unsetenv("TRAMONTANE_PREFIX_CACHE");
    unsetenv("TRAMONTANE_CONFIG");
  }

  // CLI11 takes the words last first.
  void parse(std::vector<std::string> words) {
    words.insert(words.begin(), "serve");
    std::reverse(words.begin(), words.end());
    app_.parse(words);
  }
  std::string error_of(const std::vector<std::string>& words) {
    try {
      parse(words);
    } catch (const CLI::ParseError& error) {
      return error.what();
    }
    return "no error";
  }
  std::string write_file(const std::string& text) {
    const auto path = std::filesystem::path(testing::TempDir()) /
                      (std::string(testing::UnitTest::GetInstance()->current_test_info()->name()) + ".toml");
    std::ofstream(path) << text;
    return path.string();
  }

  CLI::App app_;
  CLI::App* serve_ = nullptr;
  ServerConfig config_;
};

TEST_F(ServerConfigTest, DefaultsAreTheStructs) {
  parse({"--model", "m"});
  const ServerConfig untouched;
  EXPECT_EQ(config_.model.model, "m");
  EXPECT_EQ(config_.port, untouched.port);
  EXPECT_EQ(config_.max_body_bytes, untouched.max_body_bytes);
  EXPECT_EQ(config_.model.step_tokens, untouched.model.step_tokens);
  EXPECT_TRUE(config_.model.prefix_cache);
  EXPECT_FALSE(config_.strict);
}

TEST_F(ServerConfigTest, ReadsFlags) {
  parse({"--model", "m", "--port", "0", "--api-key", "a", "--api-key", "b", "--kv-cache-bytes", "4GiB",
         "--max-body-bytes", "1MB", "--no-prefix-cache", "--strict", "--drain-timeout", "0.5"});
  EXPECT_EQ(config_.port, 0);
  EXPECT_THAT(config_.api_keys, ElementsAre("a", "b"));
  EXPECT_EQ(config_.model.kv_cache_bytes, 4ull << 30);
  EXPECT_EQ(config_.max_body_bytes, 1'000'000);
  EXPECT_FALSE(config_.model.prefix_cache);
  EXPECT_TRUE(config_.strict);
  EXPECT_EQ(config_.drain_timeout, 0.5);
}

TEST_F(ServerConfigTest, FlagBeatsVariableBeatsFile) {
  const std::string file = write_file(
      "# a comment\nmodel = \"from-file\"\nport = 1\nmax-n = 3\nhost = \"0.0.0.0\"\napi-key = [\"x\", "
      "\"y\"]\n");
  setenv("TRAMONTANE_PORT", "2", 1);
  setenv("TRAMONTANE_PREFIX_CACHE", "false", 1);
  parse({"--config", file, "--max-n", "4"});
  EXPECT_EQ(config_.model.model, "from-file");
  EXPECT_EQ(config_.host, "0.0.0.0");
  EXPECT_EQ(config_.port, 2);
  EXPECT_EQ(config_.max_n, 4);
  EXPECT_THAT(config_.api_keys, ElementsAre("x", "y"));
  EXPECT_FALSE(config_.model.prefix_cache);
}

TEST_F(ServerConfigTest, ConfigFileCanComeFromTheEnvironment) {
  setenv("TRAMONTANE_CONFIG", write_file("model = \"m\"\nmax-stop = 5\nstrict = true\n").c_str(), 1);
  parse({});
  EXPECT_EQ(config_.max_stop, 5);
  EXPECT_TRUE(config_.strict);
}

TEST_F(ServerConfigTest, RefusesBadConfigFiles) {
  EXPECT_THAT(error_of({"--config", "/nonexistent.toml"}), HasSubstr("cannot read /nonexistent.toml"));
  EXPECT_THAT(error_of({"--config", write_file("prot = 1\n")}), HasSubstr("'prot' is no option of serve"));
  EXPECT_THAT(error_of({"--model", "m", "--config", write_file("port = 70000\n")}),
              HasSubstr("'70000' is not a number in 0..65535"));
}

struct BadValue {
  const char *flag, *value;
};
class BadValueTest : public ServerConfigTest, public testing::WithParamInterface<BadValue> {};

TEST_P(BadValueTest, IsOneLineNamingTheFlag) {
  const std::string error = error_of({"--model", "m", GetParam().flag, GetParam().value});
  EXPECT_THAT(error, HasSubstr(GetParam().flag));
  EXPECT_THAT(error, HasSubstr(GetParam().value));
  EXPECT_EQ(error.find('\n'), std::string::npos);
}

INSTANTIATE_TEST_SUITE_P(
    Values, BadValueTest,
    testing::Values(BadValue{"--port", "70000"}, BadValue{"--port", "-1"}, BadValue{"--port", "80x"},
                    BadValue{"--max-sequences", "0"}, BadValue{"--max-n", "99999999999999999999"},
                    BadValue{"--queue-timeout", "nan"}, BadValue{"--drain-timeout", "-0.1"},
                    BadValue{"--kv-cache-bytes", "4XB"}, BadValue{"--kv-cache-bytes", "99999999TiB"},
                    BadValue{"--max-body-bytes", "4294967296"}, BadValue{"--backend", "tpu"},
                    BadValue{"--gpu-memory", "1"}, BadValue{"--gpu-memory", "1.5"},
                    BadValue{"--gpu-memory", "0.9x"}, BadValue{"--device", "-1"},
                    BadValue{"--prefill-gemm", "mkl"}, BadValue{"--log-level", "loud"},
                    BadValue{"--chat-template", "v9"}),
    [](const auto& test) {
      return case_name(test.index, std::string(test.param.flag).substr(2) + " " + test.param.value);
    });

TEST_F(ServerConfigTest, ModelIsRequired) {
  EXPECT_THAT(error_of({}), HasSubstr("--model is required"));
}

TEST(ParseGpuMemory, TellsSharesFromSizes) {
  EXPECT_EQ(parse_gpu_memory("0.9").share, 0.9);
  EXPECT_EQ(parse_gpu_memory("0.9").bytes, 0u);
  EXPECT_EQ(parse_gpu_memory("1.0").share, 1.0);
  EXPECT_EQ(parse_gpu_memory("20GiB").bytes, 20ull << 30);
  EXPECT_EQ(parse_gpu_memory("20GiB").share, 0.0);
}

TEST_F(ServerConfigTest, NamesContradictions) {
  const auto contradiction = [](auto change) -> std::string {
    ServerConfig config;
    change(config);
    try {
      check_consistent(config);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "none";
  };
  EXPECT_EQ(contradiction([](ServerConfig&) {}), "none");
  EXPECT_EQ(contradiction([](ServerConfig& c) { c.model.backend = "cuda", c.model.gpu_memory = "0.5"; }),
            "none");
  EXPECT_THAT(contradiction([](ServerConfig& c) { c.model.backend = "cuda", c.model.arithmetic = "f32"; }),
              HasSubstr("--arithmetic f32"));
  EXPECT_THAT(contradiction([](ServerConfig& c) { c.model.backend = "cuda", c.model.cpu_kernels = "avx2"; }),
              HasSubstr("--cpu-kernels"));
  EXPECT_THAT(contradiction([](ServerConfig& c) { c.model.backend = "cpu", c.model.device = 1; }),
              HasSubstr("--device"));
  EXPECT_THAT(
      contradiction([](ServerConfig& c) { c.model.backend = "cpu", c.model.prefill_gemm = "cublas"; }),
      HasSubstr("--prefill-gemm cublas is for GPUs"));
  EXPECT_THAT(contradiction([](ServerConfig& c) { c.model.step_tokens = 63; }),
              HasSubstr("less than --max-sequences 64"));
  EXPECT_THAT(
      contradiction([](ServerConfig& c) { c.model.arithmetic = "f32", c.model.cpu_kernels = "avx2"; }),
      HasSubstr("scalar"));
  EXPECT_THAT(contradiction([](ServerConfig& c) { c.request_timeout = 1, c.queue_timeout = 2; }),
              HasSubstr("--request-timeout 1 s"));
  EXPECT_THAT(contradiction([](ServerConfig& c) { c.api_keys = {""}; }), HasSubstr("--api-key"));
}

TEST(ParseBytes, KnowsDecimalAndBinaryUnits) {
  EXPECT_EQ(parse_bytes("0"), 0u);
  EXPECT_EQ(parse_bytes("512MB"), 512'000'000u);
  EXPECT_EQ(parse_bytes("3kib"), 3072u);
  EXPECT_EQ(parse_bytes("2TiB"), uint64_t{2} << 40);
  for (const char* bad : {"", "MB", "-1", "1.5GB", "1 GB", "18446744073709551616", "16777216TiB"}) {
    EXPECT_THROW(parse_bytes(bad), std::runtime_error) << bad;
  }
}

TEST_F(ServerConfigTest, ReadmeHoldsTheOptionTable) {
  std::ifstream file(std::string(TRAMONTANE_SOURCE_DIR) + "/README.md");
  const std::string readme{std::istreambuf_iterator<char>(file), {}};
  EXPECT_THAT(readme, HasSubstr(options_markdown(*serve_)))
      << "paste the output of `tramontane options --markdown` into README.md";
}

}  // namespace
}  // namespace tramontane
