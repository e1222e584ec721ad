// The `tramontane` program: parses the command line, runs one subcommand, and turns every failure into one
// line and a non-zero exit.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <exception>
#include <string>

#include "server/cli/commands.h"

namespace {

int fail(std::string message, int code) {
  // One line, whatever a library or a file's names put into the message, and nothing that a terminal obeys.
  for (char& c : message) {
    if (static_cast<unsigned char>(c) < ' ' || c == '\x7f') c = ' ';
  }
  std::fprintf(stderr, "tramontane: %s\n", message.c_str());
  return code;
}

}  // namespace

int main(int argc, char** argv) try {
  CLI::App app{"Tramontane serves Mistral-family chat models over an OpenAI-compatible HTTP API."};
  const auto commands = tramontane::add_commands(app);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);  // --help, --version
    return fail(std::string(error.what()) + " (see tramontane --help)", 2);
  }
  for (const tramontane::Command& command : commands) {
    if (command.app->parsed()) return command.run();
  }
  return fail("expected a subcommand, such as serve or generate (see tramontane --help)", 2);
} catch (const std::exception& error) {
  return fail(error.what(), 1);
}
