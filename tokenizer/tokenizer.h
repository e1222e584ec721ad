// Tokenizer: text <-> ids. Immutable after construction, shared by all threads. Knows nothing of chats
// (chat_template.h) or stop strings (stream_decoder.h).
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace tramontane {

// Ids to text one at a time, holding back only an incomplete UTF-8 tail. One per stream, one thread.
class IncrementalDecoder {
 public:
  virtual ~IncrementalDecoder() = default;
  // Appends the text that `id` makes certain.
  virtual void append(int32_t id, std::string& out) = 0;
  // Appends what is held back (U+FFFD for each byte of an incomplete character); the decoder is then as new.
  virtual void finish(std::string& out) = 0;
};

class Tokenizer {
 public:
  virtual ~Tokenizer() = default;

  virtual int32_t vocab_size() const = 0;
  // Plain text to ids: no BOS, and never a control token, whatever the text spells. `text` is valid UTF-8.
  virtual std::vector<int32_t> encode(std::string_view text) const = 0;
  // Exact inverse rules of the reference library; control tokens give nothing. Ids must be in range.
  std::string decode(std::span<const int32_t> ids) const;
  virtual std::unique_ptr<IncrementalDecoder> make_decoder() const = 0;
  // The piece as the vocabulary spells it ("▁the", "<0x0A>", "[INST]"): for people.
  virtual std::string piece(int32_t id) const = 0;
  // The bytes that this id alone stands for (a space for "▁"); empty for control tokens. For logprobs'
  // `token` and `bytes`.
  virtual std::string token_bytes(int32_t id) const = 0;
  virtual bool is_control(int32_t id) const = 0;
  // The id of a control piece by its exact spelling.
  virtual std::optional<int32_t> control_id(std::string_view piece) const = 0;

  virtual int32_t bos_id() const = 0;  // -1: none
  virtual bool adds_bos() const = 0;   // whether a plain completion prompt starts with BOS
  virtual int32_t eos_id() const = 0;
};

// A SentencePiece model file (BPE with byte fallback, as Mistral's v1, v2, v3). Throws std::runtime_error
// with one line naming file and fault.
std::shared_ptr<const Tokenizer> load_sentencepiece_tokenizer(const std::string& path);

}  // namespace tramontane
