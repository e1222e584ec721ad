// `tramontane compare`: the drift report, what quantisation (or anything else) did to a model.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/server_config.h"

namespace tramontane {

struct CompareOptions {
  ModelOptions model;  // the reference: model, tokenizer, chat_template; what computes, for all
  std::vector<std::string> candidates;
  std::string prompts;          // a file; empty: the default prompts
  std::string multiple_choice;  // a JSON lines file instead of prompts
  int32_t max_tokens = 48;
  bool noise_floor = true;
  std::string json, html;  // files to write
};

// The table goes to standard output, how far it is to standard error. Returns the exit code. Throws
// std::runtime_error with one line for models, files and questions that do not fit.
int run_compare(const CompareOptions& options);

}  // namespace tramontane
