// FakeTokenizer: ids 0 to 255 are bytes, 256 is <s>, 257 is </s>. Decoding holds back incomplete characters,
// as the real ones do.
#pragma once

#include "engine/request.h"
#include "tokenizer/tokenizer.h"

namespace tramontane {

class FakeDecoder final : public IncrementalDecoder {
 public:
  void append(int32_t id, std::string& out) override {
    if (id > 255) return;
    held_ += static_cast<char>(id);
    const auto lead = static_cast<unsigned char>(held_[0]);
    const size_t size = lead < 0x80 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
    if (held_.size() < size) return;
    out += held_;
    held_.clear();
  }
  void finish(std::string& out) override {
    for (size_t i = 0; i < held_.size(); ++i) out += "\xEF\xBF\xBD";
    held_.clear();
  }

 private:
  std::string held_;
};

class FakeTokenizer final : public Tokenizer {
 public:
  int32_t vocab_size() const override { return 258; }
  std::vector<int32_t> encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    for (const char byte : text) ids.push_back(static_cast<unsigned char>(byte));
    return ids;
  }
  std::unique_ptr<IncrementalDecoder> make_decoder() const override {
    return std::make_unique<FakeDecoder>();
  }
  std::string piece(int32_t id) const override {
    return id == 256 ? "<s>" : id == 257 ? "</s>" : std::string(1, static_cast<char>(id));
  }
  std::string token_bytes(int32_t id) const override {
    return id > 255 ? "" : std::string(1, static_cast<char>(id));
  }
  bool is_control(int32_t id) const override { return id > 255; }
  std::optional<int32_t> control_id(std::string_view) const override { return std::nullopt; }
  int32_t bos_id() const override { return 256; }
  bool adds_bos() const override { return with_bos; }
  bool with_bos = true;
  int32_t eos_id() const override { return 257; }
};

// What an engine would send.
inline TokenEvent token_event(int32_t token, int32_t index = 0, float logprob = -0.5f) {
  TokenEvent event;
  event.kind = TokenEvent::Kind::token;
  event.index = index;
  event.token = token;
  event.logprob = logprob;
  return event;
}
inline TokenEvent finished_event(FinishReason finish, int32_t index = 0) {
  TokenEvent event;
  event.kind = TokenEvent::Kind::finished;
  event.index = index;
  event.finish = finish;
  return event;
}

}  // namespace tramontane
