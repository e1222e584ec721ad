// Any bytes as config.json (first byte selects which of the readers): a config within its bounds, or a
// std::runtime_error.
#include <stdexcept>

#include "config/model_config.h"
#include "engine/backend/check.h"
#include "engine/weights/mlx.h"
#include "engine/weights/names.h"
#include "engine/weights/safetensors.h"

namespace {

using namespace tramontane;

// What a generation_config.json stands beside.
const nlohmann::json kSmall = {{"architectures", {"MistralForCausalLM"}},
                               {"hidden_size", 64},
                               {"num_hidden_layers", 1},
                               {"num_attention_heads", 8},
                               {"intermediate_size", 64},
                               {"vocab_size", 512}};

void check(const ModelConfig& c) {
  CHECK(c.dim > 0 && c.n_layers > 0 && c.n_heads > 0 && c.hidden_dim > 0 && c.vocab_size > 0 &&
            c.max_position > 0,
        "sizes");
  CHECK_EQ(c.n_heads % c.n_kv_heads, 0);
  CHECK_EQ(c.head_dim % 2, 0);
  for (const Role role : {Role::wq, Role::output, Role::w2}) {
    const WeightShape shape = expected_shape(role, c);
    CHECK_LT(shape.rows, (int64_t{1} << 48) / shape.cols);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  try {
    const nlohmann::json parsed =
        parse_json(std::as_bytes(std::span(data + 1, size - 1)), "config.json", false);
    switch (data[0] % 5) {
      case 0:
        check(model_config_from_hf(parsed, nullptr));
        break;
      case 1:
        check(model_config_from_params(parsed));
        break;
      case 2:
        check(model_config_from_gguf(parsed));
        break;
      case 3:
        generation_defaults_from_hf(parsed);
        check(model_config_from_hf(kSmall, &parsed));
        break;
      case 4:
        MlxReader{parsed};
        break;
    }
  } catch (const std::runtime_error&) {
  }
  return 0;
}
