#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <functional>

#include "evaluation/report.h"

namespace tramontane {
namespace {

using Cell = std::function<std::string(const CompareColumn&)>;

std::string count_of(size_t part, size_t whole) {
  return fmt::format("{} of {}", part, whole);
}

void add(std::vector<ReportRow>& rows, const Comparison& comparison, std::string name, std::string meaning,
         const Cell& cell) {
  ReportRow row{std::move(name), std::move(meaning), {}};
  for (const CompareColumn& column : comparison.columns) row.cells.push_back(cell(column));
  rows.push_back(std::move(row));
}

void add_drift(std::vector<ReportRow>& rows, const Comparison& c) {
  const auto number = [&](const char* name, const char* meaning, const char* format,
                          double DriftSummary::*member, double factor = 1) {
    add(rows, c, name, meaning,
        [=](const CompareColumn& x) { return fmt::format(fmt::runtime(format), x.drift.*member * factor); });
  };
  number("KL mean", "nats per position, KL(reference || candidate)", "{:.2g}", &DriftSummary::kl_mean);
  number("KL 95th", "95th percentile", "{:.2g}", &DriftSummary::kl_p95);
  number("KL max", "largest at any position", "{:.2g}", &DriftSummary::kl_max);
  number("top-1 agreement", "positions where the likeliest token is the same", "{:.1f}%",
         &DriftSummary::top1_agreement, 100);
  number("perplexity, ref.", "of the reference's answers under the reference", "{:.4g}",
         &DriftSummary::reference_perplexity);
  number("perplexity", "of the reference's answers under the candidate", "{:.4g}",
         &DriftSummary::candidate_perplexity);
  number("perplexity shift", "candidate / reference - 1", "{:+.2f}%", &DriftSummary::perplexity_shift, 100);
  add(rows, c, "answers changed", "greedy answers that part from the reference's",
      [](const CompareColumn& x) { return count_of(x.drift.changed, x.drift.prompts); });
  if (c.noise()) {
    add(rows, c, "beyond noise", "of them, where the reference was surer than at any place rounding changed",
        [&](const CompareColumn& x) {
          const auto beyond = changed_beyond_noise(c, x);
          return beyond ? std::to_string(*beyond) : "-";
        });
  }
  add(rows, c, "first divergence", "median tokens before it, over changed answers",
      [](const CompareColumn& x) {
        return x.drift.changed == 0 ? "-" : fmt::format("{:.4g}", x.drift.median_first_divergence);
      });
  add(rows, c, "ratio there", "median likelihood ratio by which the reference preferred its own token",
      [](const CompareColumn& x) {
        return x.drift.changed == 0 ? "-" : ratio_text(x.drift.median_margin) + " : 1";
      });
  number("ROUGE-L F1", "own answers against the reference's, mean", "{:.3f}", &DriftSummary::rouge_l);
  number("BLEU", "the same, sentence BLEU, mean", "{:.1f}", &DriftSummary::bleu);
  number("length ratio", "the same, 13a tokens, mean", "{:.3f}", &DriftSummary::length_ratio);
}

void add_choices(std::vector<ReportRow>& rows, const Comparison& c) {
  add(rows, c, "options flipped", "items whose likeliest option differs", [](const CompareColumn& x) {
    return fmt::format("{} ({:.1f}%)", count_of(x.choices.flips.size(), x.choices.items),
                       100 * x.choices.flip_share);
  });
  if (c.noise()) {
    add(rows, c, "beyond noise", "flips whose margin is above the noise floor's largest change",
        [&](const CompareColumn& x) {
          const auto beyond = flips_beyond_noise(c, x);
          return beyond ? std::to_string(*beyond) : "-";
        });
  }
  const auto any = [&](std::optional<int32_t> ChoiceItem::*field) {
    return std::any_of(c.items.begin(), c.items.end(),
                       [=](const ChoiceItem& item) { return (item.*field).has_value(); });
  };
  if (any(&ChoiceItem::unknown)) {
    add(rows, c, "left \"unknown\"", "of the items where the reference chose unknown",
        [](const CompareColumn& x) { return count_of(x.choices.left_unknown, x.choices.reference_unknown); });
    add(rows, c, "to the stereotype", "of the same items, now the stereotyped option",
        [](const CompareColumn& x) {
          return count_of(x.choices.unknown_to_stereotype, x.choices.reference_unknown);
        });
  }
  if (any(&ChoiceItem::gold)) {
    add(rows, c, "right, ref.", "items with gold where the reference chose it",
        [](const CompareColumn& x) { return count_of(x.choices.reference_right, x.choices.gold_items); });
    add(rows, c, "right", "the same for the candidate",
        [](const CompareColumn& x) { return count_of(x.choices.candidate_right, x.choices.gold_items); });
  }
  add(rows, c, "margin change", "largest change of a preference between two options, nats per token",
      [](const CompareColumn& x) { return fmt::format("{:.2g}", x.choices.max_margin_change); });
}

// What stands on one line of a terminal: no control characters, at most `width` bytes, whole characters.
std::string one_line(std::string text, size_t width) {
  for (char& ch : text) {
    if (static_cast<unsigned char>(ch) < 32 || ch == 127) ch = ' ';
  }
  if (text.size() <= width) return text;
  while (width > 0 && (static_cast<unsigned char>(text[width]) & 0xc0) == 0x80) --width;
  return text.substr(0, width) + "...";
}

std::string flip_lines(const Comparison& c) {
  std::string out;
  for (const CompareColumn& column : c.columns) {
    for (const ChoiceFlip& flip : column.choices.flips) {
      const ChoiceItem& item = c.items[flip.item];
      out += fmt::format("  {}, item {}: \"{}\" ({} : 1) -> \"{}\" ({} : 1)\n", column.model.name,
                         one_line(item.id, 24), one_line(item.options[flip.from], 40),
                         ratio_text(flip.reference_margin), one_line(item.options[flip.to], 40),
                         ratio_text(flip.candidate_margin));
    }
  }
  return out.empty()
             ? out
             : "\nflips, with the likelihood ratio per token by which each preferred its own choice\n" + out;
}

// Names come from directories, formats from files: none of them steers the terminal.
std::string without_controls(std::string text) {
  unsigned before = 0;
  for (char& ch : text) {
    const unsigned c = static_cast<unsigned char>(ch);
    if ((c < 32 && c != '\n') || c == 127) ch = ' ';
    if (before == 0xc2 && c >= 0x80 && c < 0xa0) ch = '\xa0';  // U+0080 to U+009F become U+00A0
    before = c;
  }
  return text;
}

size_t longest_cell(const std::vector<ReportRow>& rows, size_t column) {
  size_t width = 0;
  for (const ReportRow& row : rows) width = std::max(width, row.cells[column].size());
  return width;
}

}  // namespace

std::string ratio_text(double margin) {
  const double ratio = std::exp(margin);
  if (ratio < 10) return fmt::format("{:.2f}", ratio);
  return ratio < 1e5 ? fmt::format("{:.0f}", ratio) : fmt::format("{:.1e}", ratio);
}

std::vector<ReportRow> report_rows(const Comparison& comparison) {
  std::vector<ReportRow> rows;
  add(rows, comparison, "format", "what most weights are stored as",
      [](const CompareColumn& x) { return x.model.format; });
  add(rows, comparison, "weights", "on disk", [](const CompareColumn& x) {
    return fmt::format("{:.1f} MB", static_cast<double>(x.model.bytes) / 1e6);
  });
  if (!comparison.answers.empty()) add_drift(rows, comparison);
  if (!comparison.items.empty()) add_choices(rows, comparison);
  return rows;
}

std::string text_report(const Comparison& comparison) {
  const std::vector<ReportRow> rows = report_rows(comparison);
  std::string out = fmt::format(
      "reference {}: {}, {:.1f} MB, {}\n\n{:18}", comparison.reference.name, comparison.reference.format,
      static_cast<double>(comparison.reference.bytes) / 1e6, comparison.reference.backend, "");
  std::vector<size_t> widths;
  for (size_t i = 0; i < comparison.columns.size(); ++i) {
    const CompareColumn& column = comparison.columns[i];
    const std::string name = column.noise_floor ? "noise floor" : one_line(column.model.name, 28);
    widths.push_back(std::max(name.size(), longest_cell(rows, i)));
    out += fmt::format("  {:>{}}", name, widths.back());
  }
  out += '\n';
  for (const ReportRow& row : rows) {
    out += fmt::format("{:18}", row.name);
    for (size_t i = 0; i < row.cells.size(); ++i) out += fmt::format("  {:>{}}", row.cells[i], widths[i]);
    out += '\n';
  }
  if (comparison.noise()) out += "\nnoise floor: the reference itself in F32 arithmetic instead of BF16\n";
  return without_controls(out + flip_lines(comparison));
}

}  // namespace tramontane
