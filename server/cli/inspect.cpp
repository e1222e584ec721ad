#include "server/cli/inspect.h"

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

#include "engine/weights/checkpoint.h"
#include "engine/weights/safetensors_writer.h"

namespace tramontane {
namespace {

using nlohmann::json;

json config_json(const Checkpoint& checkpoint) {
  const ModelConfig& c = checkpoint.config();
  json out = {{"architecture", c.architecture},
              {"dim", c.dim},
              {"n_layers", c.n_layers},
              {"n_heads", c.n_heads},
              {"n_kv_heads", c.n_kv_heads},
              {"head_dim", c.head_dim},
              {"hidden_dim", c.hidden_dim},
              {"vocab_size", c.vocab_size},
              {"max_position", c.max_position},
              {"rope_theta", c.rope_theta},
              {"norm_eps", c.norm_eps},
              {"sliding_window", nullptr},
              {"tied_embeddings", !checkpoint.has_output()},
              {"bos_id", c.bos_id},
              {"eos_ids", c.eos_ids}};
  if (c.sliding_window) out["sliding_window"] = *c.sliding_window;
  return out;
}

void print_json(const Checkpoint& checkpoint) {
  json tensors = json::array();
  for (const TensorInfo& t : checkpoint.tensors()) {
    tensors.push_back({{"name", t.name},
                       {"role", t.role},
                       {"format", t.format},
                       {"shape", t.shape},
                       {"bytes", t.bytes},
                       {"file", t.file}});
  }
  const json all = {{"format", checkpoint.format()},
                    {"weight_bytes", checkpoint.weight_bytes()},
                    {"config", config_json(checkpoint)},
                    {"tensors", std::move(tensors)}};
  std::cout << all.dump(2, ' ', false, json::error_handler_t::replace) << "\n";
}

std::string shape_of(const TensorInfo& tensor) {
  std::string text;
  for (const int64_t size : tensor.shape) text += (text.empty() ? "" : " x ") + std::to_string(size);
  return text;
}

void print_table(const Checkpoint& checkpoint) {
  const std::vector<TensorInfo> tensors = checkpoint.tensors();
  size_t name = 4, role = 4, format = 6, shape = 5;  // the columns' titles
  uint64_t parameters = 0;
  for (const TensorInfo& t : tensors) {
    name = std::max(name, t.name.size());
    role = std::max(role, t.role.size());
    format = std::max(format, t.format.size());
    shape = std::max(shape, shape_of(t).size());
    uint64_t count = 1;
    for (const int64_t size : t.shape) count *= static_cast<uint64_t>(size);
    parameters += count;
  }
  const auto line = [&](const std::string& n, const std::string& r, const std::string& f,
                        const std::string& s, const std::string& b, const std::string& file) {
    std::printf("%-*s  %-*s  %-*s  %*s  %12s  %s\n", static_cast<int>(name), n.c_str(),
                static_cast<int>(role), r.c_str(), static_cast<int>(format), f.c_str(),
                static_cast<int>(shape), s.c_str(), b.c_str(), file.c_str());
  };
  line("name", "role", "format", "shape", "bytes", "file");
  for (const TensorInfo& t : tensors)
    line(t.name, t.role, t.format, shape_of(t), std::to_string(t.bytes), t.file);
  const double bits = 8.0 * static_cast<double>(checkpoint.weight_bytes()) /
                      static_cast<double>(std::max<uint64_t>(parameters, 1));
  std::printf("\n%zu weights, %llu parameters, %llu bytes (%.2f bits a weight), %s\n", tensors.size(),
              static_cast<unsigned long long>(parameters),
              static_cast<unsigned long long>(checkpoint.weight_bytes()), bits, checkpoint.format().c_str());
  const json config = config_json(checkpoint);
  for (const auto& [key, value] : config.items())
    std::printf("%-15s %s\n", key.c_str(), value.dump().c_str());
}

}  // namespace

int run_inspect(const InspectOptions& options) {
  if (options.dequantize.empty() != options.out.empty()) {
    throw std::runtime_error("--dequantize NAME and --out FILE.safetensors belong together");
  }
  const auto checkpoint = Checkpoint::open(options.model);
  if (!options.dequantize.empty()) {
    const Checkpoint::Dequantized tensor = checkpoint->dequantize(options.dequantize);
    write_safetensors_f32(options.out, {{options.dequantize, tensor.shape, tensor.values}});
  } else if (options.json) {
    print_json(*checkpoint);
  } else {
    print_table(*checkpoint);
  }
  return 0;
}

}  // namespace tramontane
