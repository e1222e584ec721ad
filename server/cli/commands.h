// The subcommands of `tramontane`: their options, declared once, and what each runs.
#pragma once

#include <functional>
#include <vector>

namespace CLI {
class App;
}

namespace tramontane {

struct Command {
  CLI::App* app;             // parsed() says whether the user chose it
  std::function<int()> run;  // returns the exit code; throws with one line
};

// Declares every subcommand on `app`; the options live as long as the returned commands.
std::vector<Command> add_commands(CLI::App& app);

}  // namespace tramontane
