// ServedModel: what an HTTP thread needs of the loaded model. Everything here is immutable or thread-safe;
// main owns it.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "config/model_config.h"
#include "engine/engine.h"
#include "tokenizer/chat_template.h"
#include "tokenizer/tokenizer.h"

namespace tramontane {

struct ServedModel {
  std::string id;                  // the `model` that clients name
  std::string system_fingerprint;  // names model, format and backend: "fp_…"
  int64_t created = 0;             // unix seconds
  ModelConfig config;
  GenerationDefaults defaults;
  std::shared_ptr<const Tokenizer> tokenizer;
  std::shared_ptr<const ChatTemplate> chat_template;  // null: chat requests are refused by name
  Engine* engine = nullptr;                           // null while loading
};

}  // namespace tramontane
