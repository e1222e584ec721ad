// Everything between a --model option and an engine that answers, for every subcommand that runs a model.
// load_model.cpp is the one file of the program that names a concrete backend. Main's thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "config/server_config.h"
#include "engine/backend/backend.h"
#include "engine/engine.h"
#include "engine/weights/checkpoint.h"
#include "server/served_model.h"

namespace tramontane {

// The backend that --backend and the options of each ask for, and what it was chosen by. Throws
// std::runtime_error saying why when --backend names one that cannot be used here.
struct BackendChoice {
  std::unique_ptr<Backend> backend;
  std::string why_not_cuda;  // of --backend auto that took the CPU
};
// `fits`: throws std::runtime_error when the model has no room on a backend; then auto goes on to the next.
BackendChoice choose_backend(const ModelOptions& options,
                             const std::function<void(const Backend&)>& fits = {});

// Everything but the queue's bounds, which are the server's.
EngineOptions engine_options(const ModelOptions& options);

// A loaded model. Members are destroyed last to first: the engine stops before its backend goes.
struct LoadedModel {
  std::unique_ptr<Backend> backend;
  std::unique_ptr<Engine> engine;
  ServedModel served;
};

// What is being done and how far it is, 0..1. May throw to give up.
using LoadProgress = std::function<void(const std::string& what, double share)>;

// Opens the checkpoint, its tokenizer and chat template, uploads the weights and starts the engine; the
// checkpoint's mapping is dropped at the end. Shows progress on standard error: one line that moves on a
// terminal, plain lines elsewhere. `id`: the name clients use; empty: the directory's or file's name. A
// vocabulary whose chat encoding cannot be told apart gives a model without chat template. Throws
// std::runtime_error with one line for everything that does not fit together.
LoadedModel load_model(const ModelOptions& options, const EngineOptions& engine, const std::string& id = {},
                       const LoadProgress& progress = {});

}  // namespace tramontane
