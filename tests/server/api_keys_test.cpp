#include "server/api_keys.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace tramontane {
namespace {

TEST(ApiKeys, KnowsItsKeysAndNoOther) {
  const ApiKeys keys({"alpha", "beta"}, "");
  EXPECT_TRUE(keys.required());
  EXPECT_EQ(keys.identify("alpha")->name, "key-1");
  EXPECT_EQ(keys.identify("beta")->name, "key-2");
  EXPECT_NE(keys.identify("alpha")->salt, keys.identify("beta")->salt);
  for (const char* wrong : {"", "alph", "alphaa", "ALPHA", "gamma"})
    EXPECT_FALSE(keys.identify(wrong)) << wrong;
}

TEST(ApiKeys, NoneGivenNoneRequired) {
  EXPECT_FALSE(ApiKeys({}, "").required());
}

TEST(ApiKeys, ReadsAFile) {
  const auto path = std::filesystem::temp_directory_path() /
                    ("keys-" + std::to_string(::testing::UnitTest::GetInstance()->random_seed()) +
                     std::to_string(getpid()));
  std::ofstream(path) << "# ours\n\n  one \r\ntwo";
  const ApiKeys keys({}, path.string());
  EXPECT_TRUE(keys.identify("one") && keys.identify("two"));
  EXPECT_FALSE(keys.identify("# ours") || keys.identify(""));
  std::ofstream(path) << "# none\n";
  EXPECT_THROW(ApiKeys({}, path.string()), std::runtime_error);
  std::filesystem::remove(path);
  EXPECT_THROW(ApiKeys({}, path.string()), std::runtime_error);
  EXPECT_THROW(ApiKeys({""}, ""), std::runtime_error);
}

}  // namespace
}  // namespace tramontane
