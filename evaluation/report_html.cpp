#include <fmt/format.h>

#include <algorithm>

#include "evaluation/report.h"
#include "evaluation/report_charts.h"
#include "evaluation/report_style.h"
#include "evaluation/svg.h"

namespace tramontane {
namespace {

constexpr size_t kShownPrompts = 100;  // side by side; every figure counts all of them
constexpr size_t kShownFlips = 200;    // of each column
constexpr size_t kDots = 60;           // a card with more prompts has no dots

bool parted(const CompareColumn& column, size_t prompt) {
  return column.prompts[prompt].first_divergence.has_value();
}

std::string own_color(const Comparison& c, size_t column) {
  return fmt::format("style=\"--own:{}\"", column_color(c, column));
}

std::string header(const Comparison& c) {
  size_t positions = 0;
  for (const ReferenceAnswer& answer : c.answers) positions += answer.ids.size();
  const std::string asked = c.items.empty()
                                ? fmt::format("{} prompts, {} positions of the reference's greedy answers",
                                              c.answers.size(), positions)
                                : fmt::format("{} multiple-choice items", c.items.size());
  return fmt::format(
      "<header><p class=\"kind\">Drift report</p><h1>How far from {}?</h1>\n"
      "<p class=\"lead\">The reference is {}, {:.1f} MB of weights, computed by {}. {}.</p></header>\n",
      escape_html(c.reference.name), escape_html(c.reference.format),
      static_cast<double>(c.reference.bytes) / 1e6, escape_html(c.reference.backend), asked);
}

std::string card(const Comparison& c, size_t index) {
  const CompareColumn& column = c.columns[index];
  const bool choices = !c.items.empty();
  const size_t changed = choices ? column.choices.flips.size() : column.drift.changed;
  const size_t total = choices ? c.items.size() : c.answers.size();
  std::string out =
      fmt::format("<div class=\"card\" {}><h3>{}</h3><p class=\"format\">{}, {:.1f} MB</p>",
                  own_color(c, index), escape_html(column_label(column)),
                  column.noise_floor ? "the reference in F32 arithmetic" : escape_html(column.model.format),
                  static_cast<double>(column.model.bytes) / 1e6);
  out += fmt::format("<div class=\"big\">{} <small>of {}</small></div><p class=\"what\">{}", changed, total,
                     choices ? "options flipped" : "answers changed");
  const auto beyond = choices ? flips_beyond_noise(c, column) : changed_beyond_noise(c, column);
  if (beyond) out += fmt::format(", {} beyond the noise", *beyond);
  out += "</p>";
  if (!choices && total <= kDots) {
    out += "<div class=\"dots\">";
    for (size_t i = 0; i < total; ++i) out += parted(column, i) ? "<i class=\"on\"></i>" : "<i></i>";
    out += "</div>";
  }
  return out + "</div>\n";
}

std::string table(const Comparison& c) {
  std::string out = "<div class=\"panel\"><table><thead><tr><th></th>";
  for (size_t i = 0; i < c.columns.size(); ++i) {
    out += fmt::format("<th {}>{}</th>", own_color(c, i), escape_html(column_label(c.columns[i])));
  }
  out += "</tr></thead><tbody>\n";
  for (const ReportRow& row : report_rows(c)) {
    out += fmt::format("<tr><td>{}<span class=\"meaning\">{}</span></td>", escape_html(row.name),
                       escape_html(row.meaning));
    for (const std::string& cell : row.cells) out += "<td>" + escape_html(cell) + "</td>";
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string section(const char* title, const char* note, const std::string& chart) {
  return fmt::format("<h2>{}</h2><p class=\"note\">{}</p>\n<div class=\"panel\">{}</div>\n", title, note,
                     chart);
}

bool is_space(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// The common beginning dim, the first word that differs marked.
std::string marked_answer(const std::string& answer, const std::string& reference) {
  const auto parting = std::mismatch(answer.begin(), answer.end(), reference.begin(), reference.end()).first;
  auto begin = static_cast<size_t>(parting - answer.begin());
  while (begin > 0 && begin <= answer.size() && !is_space(answer[begin - 1])) --begin;
  size_t end = begin;
  while (end < answer.size() && is_space(answer[end])) ++end;
  while (end < answer.size() && !is_space(answer[end])) ++end;
  const std::string_view text(answer);
  std::string out;
  if (begin > 0) out += "<span class=\"same\">" + escape_html(text.substr(0, begin)) + "</span>";
  if (begin < end) {
    out += "<mark>" + escape_html(text.substr(begin, end - begin)) + "</mark>";
  } else {
    out += "<mark>(ends here)</mark>";
  }
  return out + escape_html(text.substr(end));
}

std::string answer_row(const Comparison& c, size_t index, size_t prompt) {
  const CompareColumn& column = c.columns[index];
  const PromptDrift& drift = column.prompts[prompt];
  std::string detail = "the same answer", said = "<em>the same</em>";
  if (drift.first_divergence) {
    const PositionDrift& p = drift.positions[*drift.first_divergence];
    detail = fmt::format("after {} tokens, at {} : 1<br>ROUGE-L {:.2f}", *drift.first_divergence,
                         ratio_text(p.reference_margin), drift.rouge_l);
    said = drift.answer == c.answers[prompt].answer ? "<em>the same text by other tokens</em>"
                                                    : marked_answer(drift.answer, c.answers[prompt].answer);
  }
  return fmt::format(
      "<div class=\"who\" style=\"color:{}\">{}<small>{}</small></div><div class=\"said\">{}</div>\n",
      column_color(c, index), escape_html(column_label(column)), detail, said);
}

std::string side_by_side(const Comparison& c) {
  std::string out =
      "<h2>Side by side</h2><p class=\"note\">Each model's own greedy answer. What it shares with the "
      "reference's is "
      "dim, the first word that differs is marked; the ratio says how much the reference preferred its own "
      "token "
      "there. A dot a column: filled where the answer changed.</p>\n";
  const size_t shown = std::min(kShownPrompts, c.answers.size());
  for (size_t i = 0; i < shown; ++i) {
    out += fmt::format("<details{}><summary><span class=\"ask\">{}</span><span class=\"dots\">",
                       i < 3 ? " open" : "", escape_html(c.answers[i].prompt));
    for (size_t k = 0; k < c.columns.size(); ++k) {
      out += fmt::format("<i {} {}></i>", own_color(c, k), parted(c.columns[k], i) ? "class=\"on\"" : "");
    }
    out += fmt::format(
        "</span></summary><div class=\"answers\"><div class=\"who\">reference</div><div "
        "class=\"said\">{}</div>\n",
        escape_html(c.answers[i].answer));
    for (size_t k = 0; k < c.columns.size(); ++k) out += answer_row(c, k, i);
    out += "</div></details>\n";
  }
  if (shown < c.answers.size()) {
    out += fmt::format("<p class=\"note\">The first {} of {} prompts; --json has all.</p>\n", shown,
                       c.answers.size());
  }
  return out;
}

std::string prompt_sections(const Comparison& c) {
  return section("Every position",
                 "How far the next-token distribution moved, at every position of the reference's answers. "
                 "The grey row "
                 "is what rounding alone does; mass to the right of it is drift. Dashes: the mean.",
                 kl_histogram(c)) +
         section("How long answers stay the same",
                 "Share of greedy answers that are still the reference's, token for token. One changed token "
                 "changes "
                 "all that follows, so small drift ends in many changed answers.",
                 survival_chart(c)) +
         section("Agreement along the answer",
                 "With the reference's own words before each position: how often the likeliest next token is "
                 "the same.",
                 agreement_chart(c)) +
         section("Where answers part",
                 "A dot for each changed answer. To the left the reference itself hardly preferred its token "
                 "and any "
                 "rounding may flip it; to the right it was sure, and the candidate disagrees.",
                 divergence_strip(c)) +
         side_by_side(c);
}

std::string flip_list(const Comparison& c) {
  std::string out =
      "<h2>The flips</h2><p class=\"note\">Ratios: how much likelier, per token, each model held its own "
      "choice than the other's.</p>\n";
  for (size_t i = 0; i < c.columns.size(); ++i) {
    const auto& flips = c.columns[i].choices.flips;
    out += fmt::format(
        "<details{}><summary><span class=\"ask\" style=\"color:{}\">{}</span>{}</summary><div "
        "class=\"answers\">\n",
        flips.empty() || flips.size() > 20 ? "" : " open", column_color(c, i),
        escape_html(column_label(c.columns[i])), flips.size());
    for (size_t k = 0; k < std::min(flips.size(), kShownFlips); ++k) {
      const ChoiceFlip& flip = flips[k];
      const ChoiceItem& item = c.items[flip.item];
      out += fmt::format(
          "<div class=\"who\">item {}<small>{} : 1, then {} : 1</small></div><div class=\"said\">{}\n<span "
          "class=\"same\">{}</span> → <mark>{}</mark></div>\n",
          escape_html(item.id), ratio_text(flip.reference_margin), ratio_text(flip.candidate_margin),
          escape_html(item.question), escape_html(item.options[flip.from]),
          escape_html(item.options[flip.to]));
    }
    out += "</div></details>\n";
  }
  return out;
}

std::string choice_sections(const Comparison& c) {
  std::string out =
      section("Flips and their margins",
              "A dot an item. Across: how much the reference preferred its option to its rival, nats per "
              "token. Up: how much the candidate still does; below the line the choice flipped. Undrifted "
              "dots lie on the diagonal.",
              flip_scatter(c));
  const bool any_unknown = std::any_of(c.columns.begin(), c.columns.end(), [](const CompareColumn& column) {
    return column.choices.reference_unknown > 0;
  });
  if (any_unknown) {
    out += section("What became of “unknown”", "Items that the reference answered with the unknown option.",
                   unknown_bars(c));
  }
  return out + flip_list(c);
}

}  // namespace

std::string html_report(const Comparison& c) {
  std::string out = fmt::format(
      "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"viewport\" "
      "content=\"width=device-width, initial-scale=1\"><meta http-equiv=\"Content-Security-Policy\" "
      "content=\"default-src 'none'; style-src 'unsafe-inline'\"><title>Drift from "
      "{}</title><style>{}</style></head><body><main>\n",
      escape_html(c.reference.name), kReportStyle);
  out += header(c) + "<div class=\"cards\">\n";
  for (size_t i = 0; i < c.columns.size(); ++i) out += card(c, i);
  out += "</div>\n";
  out += c.items.empty() ? prompt_sections(c) : choice_sections(c);
  out +=
      "<h2>All figures</h2><p class=\"note\">Logarithms are natural. Perplexity is of the reference's own "
      "greedy "
      "answers.</p>\n" +
      table(c);
  out +=
      "<footer>Made by tramontane compare. Noise floor: the reference's weights computed in F32 instead of "
      "BF16; "
      "a change smaller than that says nothing about a model.</footer>\n</main></body></html>\n";
  return out;
}

}  // namespace tramontane
