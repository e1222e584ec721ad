// A chat request of any bytes is encoded or refused with ChatError, in every format; and JSON that is read
// once is read again as the same.
#include <cstddef>
#include <cstdint>

#include "tests/tokenizer/sentencepiece_model_bytes.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/python_json.h"

using namespace tramontane;

namespace {

// Bytes, and the control tokens of every chat format.
std::shared_ptr<const Tokenizer> make_tokenizer() {
  ModelBytes model = ModelBytes::minimal();
  for (const char* piece : {"[INST]", "[/INST]", "[TOOL_CALLS]", "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]",
                            "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "<|im_start|>", "<|im_end|>"}) {
    model.pieces.push_back({piece, 0, PieceType::control});
  }
  return make_sentencepiece_tokenizer(parse_sentencepiece_model(model.serialize(), "chat"), "chat");
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const std::shared_ptr<const Tokenizer> tokenizer = make_tokenizer();
  static const ChatTemplate templates[] = {{tokenizer, ChatFormat::v1},
                                           {tokenizer, ChatFormat::v2},
                                           {tokenizer, ChatFormat::v3},
                                           {tokenizer, ChatFormat::chatml}};
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const ChatTemplate& chat_template : templates) {
    try {
      chat_template.encode(text, true);
    } catch (const ChatError&) {
    }
  }
  try {
    const std::string once = dump_python_json(parse_python_json(text));
    if (dump_python_json(parse_python_json(once)) != once) __builtin_trap();
  } catch (const JsonSyntaxError&) {
  } catch (const JsonRefusedError&) {
  }
  return 0;
}
