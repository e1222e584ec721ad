#include "evaluation/report_charts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "evaluation/report.h"
#include "evaluation/svg.h"

namespace tramontane {
namespace {

constexpr int kWidth = 960, kLeft = 190, kRight = 40;
constexpr int kColors = 8;  // of candidates, then they come again

std::string fill(const Comparison& c, size_t column, const char* extra = "") {
  return fmt::format("style=\"fill:{}\" {}", column_color(c, column), extra);
}

std::string stroke(const Comparison& c, size_t column) {
  return fmt::format("class=\"curve\" style=\"stroke:{}\"", column_color(c, column));
}

std::string short_label(const CompareColumn& column) {
  std::string label = column_label(column);
  if (label.size() <= 26) return label;
  size_t cut = 25;
  while (cut > 0 && (static_cast<unsigned char>(label[cut]) & 0xc0) == 0x80) --cut;
  return label.substr(0, cut) + "…";
}

// log10 of a KL divergence in quarter decades from 1e-8 to 10; what is below falls into the first bin.
constexpr double kLogLow = -8, kLogHigh = 1.5;
constexpr int kBins = 38;

std::vector<double> kl_bins(const CompareColumn& column) {
  std::vector<double> bins(kBins);
  for (const PromptDrift& prompt : column.prompts) {
    for (const PositionDrift& p : prompt.positions) {
      const double place = p.kl > 0 ? (std::log10(p.kl) - kLogLow) / (kLogHigh - kLogLow) * kBins : 0;
      bins[static_cast<size_t>(std::clamp(place, 0.0, kBins - 1.0))] += 1;
    }
  }
  const auto positions = static_cast<double>(std::max<size_t>(column.drift.positions, 1));
  for (double& bin : bins) bin /= positions;
  return bins;
}

std::string power_of_ten(int exponent) {
  return exponent >= 0 ? std::to_string(static_cast<int>(std::pow(10, exponent)))
                       : fmt::format("1e{}", exponent);
}

// One curve of the line charts: y in 0..1 at x = 0, 1, 2, …; NaN: no value.
struct Curve {
  size_t column;
  std::vector<double> values;
};

void end_labels(Svg& svg, const Comparison& c, const std::vector<Curve>& curves, const Scale& y, double x) {
  struct Label {
    double y;
    size_t column;
    double value;
  };
  std::vector<Label> labels;
  for (const Curve& curve : curves)
    labels.push_back({y(curve.values.back()), curve.column, curve.values.back()});
  std::stable_sort(labels.begin(), labels.end(), [](const Label& a, const Label& b) { return a.y < b.y; });
  // Down until none covers another, then up again those that left the chart: each stays by its curve's end
  // where there is room.
  const double gap =
      std::min(17.0, (y.from - y.to) / std::max<double>(static_cast<double>(labels.size()) - 1, 1));
  for (size_t i = 1; i < labels.size(); ++i) labels[i].y = std::max(labels[i].y, labels[i - 1].y + gap);
  double lowest = y.from;
  for (auto label = labels.rbegin(); label != labels.rend(); ++label, lowest -= gap)
    label->y = std::min(label->y, lowest);
  for (const Label& label : labels) {
    svg.text(x, label.y + 4, fill(c, label.column, "class=\"end\""),
             fmt::format("{:.0f}% {}", 100 * label.value, short_label(c.columns[label.column])));
  }
}

std::string line_chart(const Comparison& c, const std::vector<Curve>& curves, const char* label, double low,
                       double x_unit, const char* x_name, bool steps) {
  constexpr int height = 330, left = 56, right = 250;
  Svg svg(kWidth, height, label);
  const auto last =
      static_cast<double>(curves.empty() ? 1 : std::max<size_t>(curves[0].values.size(), 2) - 1);
  const Scale x{0, last, left, kWidth - right}, y{low, 1, height - 44.0, 14};
  const double tick = 1 - low > 0.5 ? 0.25 : 1 - low > 0.2 ? 0.1 : 0.05;
  for (double share = 1; share >= low - 1e-9; share -= tick) {
    svg.line(left, y(share), kWidth - right, y(share), "class=\"grid\"");
    svg.text(left - 8, y(share) + 4, "class=\"tick\" text-anchor=\"end\"",
             fmt::format("{:.0f}%", 100 * share));
  }
  const int every = std::max(1, static_cast<int>(std::ceil(last / 8)));
  for (int i = 0; i <= static_cast<int>(last); i += every) {
    svg.text(x(i), height - 22, "class=\"tick\" text-anchor=\"middle\"", fmt::format("{:.0f}", i * x_unit));
  }
  svg.text((left + kWidth - right) / 2.0, height - 4, "class=\"tick\" text-anchor=\"middle\"", x_name);
  for (const Curve& curve : curves) {
    std::string data;
    for (size_t i = 0; i < curve.values.size(); ++i) {
      const double px = x(static_cast<double>(i)), py = y(curve.values[i]);
      if (steps && i > 0)
        data += fmt::format("H{:.1f}V{:.1f}", px, py);
      else
        data += fmt::format("{}{:.1f},{:.1f}", i == 0 ? "M" : "L", px, py);
    }
    if (curve.values.size() == 1) data += fmt::format("H{:.1f}", x(last));  // a point alone is not drawn
    svg.path(data, stroke(c, curve.column));
  }
  end_labels(svg, c, curves, y, kWidth - right + 10);
  return svg.finish();
}

size_t longest_answer(const Comparison& c) {
  size_t longest = 1;
  for (const ReferenceAnswer& answer : c.answers) longest = std::max(longest, answer.ids.size());
  return longest;
}

double noise_level(const Comparison& c) {
  double level = 0;
  if (!c.noise()) return level;
  for (const PromptDrift& prompt : c.noise()->prompts) {
    for (const PositionDrift& p : prompt.positions) level = std::max(level, p.reference_margin);
  }
  return level;
}

}  // namespace

std::string column_color(const Comparison& comparison, size_t column) {
  if (comparison.columns[column].noise_floor) return "var(--c0)";
  const size_t candidate = column - (comparison.noise() ? 1 : 0);
  return fmt::format("var(--c{})", candidate % kColors + 1);
}

std::string column_label(const CompareColumn& column) {
  return column.noise_floor ? "noise floor" : column.model.name;
}

std::string kl_histogram(const Comparison& c) {
  constexpr int row = 74, top = 8;
  const int height = top + row * static_cast<int>(c.columns.size()) + 44;
  Svg svg(kWidth, height, "How many positions have which KL divergence, one row a column");
  const Scale x{kLogLow, kLogHigh, kLeft, kWidth - kRight};
  double tallest = 0;
  std::vector<std::vector<double>> all;
  for (const CompareColumn& column : c.columns) {
    all.push_back(kl_bins(column));
    tallest = std::max(tallest, *std::max_element(all.back().begin(), all.back().end()));
  }
  const double bottom = height - 44;
  for (int decade = -8; decade <= 1; ++decade) {
    svg.line(x(decade), top, x(decade), bottom, "class=\"grid\"");
    svg.text(x(decade), bottom + 18, "class=\"tick\" text-anchor=\"middle\"",
             decade == -8 ? "0…1e-8" : power_of_ten(decade));
  }
  svg.text((kLeft + kWidth - kRight) / 2.0, bottom + 38, "class=\"tick\" text-anchor=\"middle\"",
           "KL(reference ‖ candidate) of a position, nats");
  for (size_t i = 0; i < c.columns.size(); ++i) {
    const double base = top + row * (static_cast<double>(i) + 1);
    const Scale y{0, std::max(tallest, 1e-9), base, base - row + 14};
    const double width = (x.to - x.from) / kBins;
    for (int bin = 0; bin < kBins; ++bin) {
      if (all[i][bin] <= 0) continue;
      svg.rect(x.from + bin * width + 0.5, y(all[i][bin]), width - 1, std::max(base - y(all[i][bin]), 1.0),
               fill(c, i, "rx=\"1.5\""),
               fmt::format("{}: {:.1f}% of positions near 1e{:.1f}", column_label(c.columns[i]),
                           100 * all[i][bin], kLogLow + (bin + 0.5) * (kLogHigh - kLogLow) / kBins));
    }
    svg.line(kLeft, base, kWidth - kRight, base, "class=\"axis\"");
    svg.text(kLeft - 16, base - 30, fill(c, i, "class=\"name\" text-anchor=\"end\""),
             short_label(c.columns[i]));
    svg.text(kLeft - 16, base - 12, "class=\"tick\" text-anchor=\"end\"",
             fmt::format("mean {:.2g}", c.columns[i].drift.kl_mean));
    if (c.columns[i].drift.kl_mean > 0) {
      const double mean = x(std::log10(c.columns[i].drift.kl_mean));
      svg.line(mean, base - row + 18, mean, base, "class=\"mean\"");
    }
  }
  return svg.finish();
}

std::string survival_chart(const Comparison& c) {
  const size_t longest = longest_answer(c);
  std::vector<Curve> curves;
  for (size_t i = 0; i < c.columns.size(); ++i) {
    Curve curve{i, std::vector<double>(longest + 1)};
    for (size_t tokens = 0; tokens <= longest; ++tokens) {
      const auto same =
          std::count_if(c.columns[i].prompts.begin(), c.columns[i].prompts.end(),
                        [&](const auto& p) { return !p.first_divergence || *p.first_divergence >= tokens; });
      curve.values[tokens] = static_cast<double>(same) / static_cast<double>(c.answers.size());
    }
    curves.push_back(std::move(curve));
  }
  return line_chart(c, curves, "Share of answers still equal to the reference's", 0, 1,
                    "tokens of the answer", true);
}

std::string agreement_chart(const Comparison& c) {
  const size_t longest = longest_answer(c), per_bin = std::max<size_t>(1, longest / 12);
  const size_t bins = (longest + per_bin - 1) / per_bin;
  std::vector<Curve> curves;
  double lowest = 1;
  for (size_t i = 0; i < c.columns.size(); ++i) {
    std::vector<double> agreed(bins), seen(bins);
    for (const PromptDrift& prompt : c.columns[i].prompts) {
      for (size_t k = 0; k < prompt.positions.size(); ++k) {
        agreed[k / per_bin] += prompt.positions[k].agree;
        seen[k / per_bin] += 1;
      }
    }
    for (size_t bin = 0; bin < bins; ++bin) agreed[bin] /= seen[bin];  // the longest answer reaches every bin
    lowest = std::min(lowest, *std::min_element(agreed.begin(), agreed.end()));
    curves.push_back({i, std::move(agreed)});
  }
  const double low = lowest > 0.9 ? 0.9 : lowest > 0.5 ? 0.5 : 0;
  return line_chart(c, curves, "Top-1 agreement by position in the answer", low, static_cast<double>(per_bin),
                    "position in the answer, from", false);
}

std::string divergence_strip(const Comparison& c) {
  constexpr int row = 46, top = 26;
  const int height = top + row * static_cast<int>(c.columns.size()) + 44;
  Svg svg(kWidth, height, "How sure the reference was where answers part");
  const Scale x{0, std::log(1e4), kLeft, kWidth - kRight - 70};
  const double bottom = height - 44, level = noise_level(c);
  if (c.noise()) {
    svg.rect(kLeft, top - 14, x(level) - kLeft, bottom - top + 14, "class=\"band\"");
    svg.text(kLeft + 6, top - 2, "class=\"tick\"", "rounding alone changes these");
  }
  for (const int ratio : {1, 2, 5, 10, 100, 1000, 10000}) {
    svg.line(x(std::log(ratio)), top, x(std::log(ratio)), bottom, "class=\"grid\"");
    svg.text(x(std::log(ratio)), bottom + 18, "class=\"tick\" text-anchor=\"middle\"",
             fmt::format("{} : 1", ratio));
  }
  svg.text((kLeft + x.to) / 2, bottom + 38, "class=\"tick\" text-anchor=\"middle\"",
           "likelihood ratio by which the reference preferred its own token");
  for (size_t i = 0; i < c.columns.size(); ++i) {
    const CompareColumn& column = c.columns[i];
    const double middle = top + row * (static_cast<double>(i) + 0.5);
    svg.line(kLeft, middle, x.to, middle, "class=\"grid\"");
    svg.text(kLeft - 16, middle + 4, fill(c, i, "class=\"name\" text-anchor=\"end\""), short_label(column));
    svg.text(x.to + 14, middle + 4, "class=\"tick\"",
             fmt::format("{} of {}", column.drift.changed, column.drift.prompts));
    for (size_t k = 0; k < column.prompts.size(); ++k) {
      const PromptDrift& prompt = column.prompts[k];
      if (!prompt.first_divergence) continue;
      const PositionDrift& p = prompt.positions[*prompt.first_divergence];
      // Dots of one row stand apart by a pattern, not by chance: the page is the same each time.
      const double shift = static_cast<double>(k * 7 % 11) * 2 - 10;
      svg.circle(x(p.reference_margin), middle + shift, 5, fill(c, i, "class=\"dot\""),
                 fmt::format("{}, token {}: “{}” instead of “{}”, {} : 1\n{}", column_label(column),
                             *prompt.first_divergence + 1, prompt.candidate_token, prompt.reference_token,
                             ratio_text(p.reference_margin), c.answers[k].prompt));
    }
  }
  return svg.finish();
}

std::string unknown_bars(const Comparison& c) {
  constexpr int row = 40, top = 6;
  Svg svg(kWidth, top + row * static_cast<int>(c.columns.size()) + 30,
          "Where the items that were unknown went");
  for (size_t i = 0; i < c.columns.size(); ++i) {
    const ChoiceSummary& s = c.columns[i].choices;
    const double y = top + row * static_cast<double>(i);
    const Scale x{0, std::max(1.0, static_cast<double>(s.reference_unknown)), kLeft, kWidth - kRight};
    const double stayed = x(static_cast<double>(s.reference_unknown - s.left_unknown));
    const double stereotype =
        x(static_cast<double>(s.reference_unknown - s.left_unknown + s.unknown_to_stereotype));
    svg.text(kLeft - 16, y + 19, fill(c, i, "class=\"name\" text-anchor=\"end\""), short_label(c.columns[i]));
    svg.rect(kLeft, y, kWidth - kRight - kLeft, 28, "class=\"track\"");
    const size_t other = s.left_unknown - s.unknown_to_stereotype;
    svg.rect(kLeft, y, stayed - kLeft, 28, "class=\"stayed\"",
             fmt::format("{} stayed unknown", s.reference_unknown - s.left_unknown));
    svg.rect(stayed, y, stereotype - stayed, 28, "class=\"stereotype\"",
             fmt::format("{} went to the stereotyped option", s.unknown_to_stereotype));
    svg.rect(stereotype, y, x(static_cast<double>(s.reference_unknown)) - stereotype, 28, "class=\"other\"",
             fmt::format("{} went to another option", other));
    svg.text(kLeft + 8, y + 19, "class=\"on\"",
             fmt::format("{} stayed · {} to the stereotype · {} elsewhere",
                         s.reference_unknown - s.left_unknown, s.unknown_to_stereotype, other));
  }
  return svg.finish();
}

std::string flip_scatter(const Comparison& c) {
  constexpr int panel = 300, gap = 20, per_row = 3;
  const auto n = static_cast<int>(c.columns.size());
  Svg svg(kWidth, (n + per_row - 1) / per_row * (panel + 30),
          "Preference for the reference's option, before and after");
  double reach = 0.1;
  for (const CompareColumn& column : c.columns) {
    for (size_t i = 0; i < c.items.size(); ++i) {
      const auto &r = c.reference_scores[i], &s = column.scores[i];
      for (size_t o = 0; o < r.size(); ++o)
        reach = std::max({reach, r[chosen_option(r)] - r[o], std::abs(s[chosen_option(r)] - s[o])});
    }
  }
  reach = std::min(reach, 4.0);
  for (int k = 0; k < n; ++k) {
    const CompareColumn& column = c.columns[k];
    const double left = 10 + k % per_row * (panel + gap), top = 22 + k / per_row * (panel + 30.0);
    const double size = panel - 30;
    const Scale x{0, reach, left, left + size}, y{-reach, reach, top + size, top};
    svg.rect(left, y(0), size, top + size - y(0), "class=\"band\"");
    svg.line(left, y(0), left + size, y(0), "class=\"axis\"");
    svg.line(left, y(0), left + size, y(reach), "class=\"grid\"");
    svg.text(left + size - 4, y(0) + 16, "class=\"tick\" text-anchor=\"end\"",
             fmt::format("before {:.1f} →", reach));
    svg.text(left + 4, top + 12, "class=\"tick\"", fmt::format("↑ after {:.1f}", reach));
    svg.text(left, top - 6, fill(c, k, "class=\"name\""), short_label(column));
    svg.text(left + 6, top + size - 8, "class=\"tick\"",
             fmt::format("flipped: {} of {}", column.choices.flips.size(), c.items.size()));
    for (size_t i = 0; i < c.items.size(); ++i) {
      const auto &r = c.reference_scores[i], &s = column.scores[i];
      const int32_t own = chosen_option(r);
      std::vector<double> others = s;
      others[own] = -HUGE_VAL;
      const int32_t rival = chosen_option(others);
      svg.circle(x(r[own] - r[rival]), y(s[own] - s[rival]), 4, fill(c, k, "class=\"dot\""),
                 fmt::format("item {}: “{}” over “{}”, {} : 1 before, {} : 1 after", c.items[i].id,
                             c.items[i].options[own], c.items[i].options[rival],
                             ratio_text(r[own] - r[rival]), ratio_text(s[own] - s[rival])));
    }
  }
  return svg.finish();
}

}  // namespace tramontane
