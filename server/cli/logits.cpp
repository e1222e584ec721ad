#include "server/cli/logits.h"

#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <vector>

#include "engine/model/score.h"
#include "engine/weights/safetensors_writer.h"
#include "server/cli/load_model.h"

namespace tramontane {
namespace {

std::vector<int32_t> read_ids(const std::string& path) {
  std::ifstream file(path);
  if (!file) throw std::runtime_error(path + ": cannot be read");
  const nlohmann::json json = nlohmann::json::parse(file, nullptr, false);
  if (!json.is_array()) throw std::runtime_error(path + ": expected a JSON array of token ids");
  std::vector<int32_t> ids;
  for (const auto& value : json) {
    if (!value.is_number_integer() || value < 0 || value > INT32_MAX) {
      throw std::runtime_error(path + ": expected token ids, entry " + std::to_string(ids.size()) + " is " +
                               value.dump());
    }
    ids.push_back(value.get<int32_t>());
  }
  return ids;
}

}  // namespace

int run_logits(const LogitsOptions& options) {
  const std::vector<int32_t> ids = read_ids(options.ids);
  const auto checkpoint = Checkpoint::open(options.model.model);
  const auto backend = choose_backend(options.model).backend;
  const int64_t vocab = checkpoint->config().vocab_size;
  std::vector<float> logits(ids.size() * static_cast<size_t>(vocab));
  score(*backend, *checkpoint, ids, options.model.step_tokens,
        [&](int32_t first_row, std::span<const float> rows) {
          std::copy(rows.begin(), rows.end(), logits.begin() + first_row * vocab);
        });
  write_safetensors_f32(options.out, {{"logits", {static_cast<int64_t>(ids.size()), vocab}, logits}});
  std::fprintf(stderr, "wrote logits [%zu, %lld] to %s\n", ids.size(), static_cast<long long>(vocab),
               options.out.c_str());
  return 0;
}

}  // namespace tramontane
