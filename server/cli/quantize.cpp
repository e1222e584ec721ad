#include "server/cli/quantize.h"

#include <fmt/format.h>

#include <filesystem>

#include "engine/weights/quantize.h"
#include "server/cli/load_display.h"
#include "server/cli/signals.h"

namespace tramontane {
namespace {

struct Interrupted {
  int signal;
};

void print_report(const QuantizeCommandOptions& options, const QuantizeReport& report) {
  fmt::print(stderr, "{}: {} of {}\n", options.out, format_bytes(report.bytes_written), options.to);
  if (!std::filesystem::is_directory(options.model))
    fmt::print(stderr, "without a tokenizer: use it with --tokenizer {}\n", options.model);
  if (report.left_dense.empty()) return;
  fmt::print(stderr, "{} matrices stay as they are, group {} does not divide their rows: {}{}\n",
             report.left_dense.size(), options.group, report.left_dense.front(),
             report.left_dense.size() > 1 ? ", ..." : "");
}

}  // namespace

int run_quantize(const QuantizeCommandOptions& options) {
  const Signals signals;
  LoadDisplay display("quantising", "quantised");
  try {
    const QuantizeReport report = quantize_checkpoint({.model = options.model,
                                                       .out = options.out,
                                                       .to = parse_quantize_target(options.to),
                                                       .group = options.group,
                                                       .threads = options.threads},
                                                      [&](uint64_t done, uint64_t total) {
                                                        if (const auto signal = signals.poll())
                                                          throw Interrupted{*signal};
                                                        display.update(done, total);
                                                      });
    display.finish(report.bytes_read);
    print_report(options, report);
    return 0;
  } catch (const Interrupted& interrupted) {
    fmt::print(stderr, "\ninterrupted: nothing was written\n");
    return 128 + interrupted.signal;
  }
}

}  // namespace tramontane
