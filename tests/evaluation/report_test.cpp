#include "evaluation/report.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <regex>

#include "evaluation/report_charts.h"
#include "evaluation/svg.h"

namespace tramontane {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

constexpr const char* kHostile = "</script><script>alert('&\"')</script>\x1b[31m\u009b31m\xff";

PromptDrift drift(bool changed) {
  PromptDrift d;
  d.positions = {{.kl = 0.001,
                  .reference_logprob = -0.1,
                  .candidate_logprob = -0.2,
                  .candidate_token = 1,
                  .agree = true},
                 {.kl = 0.5,
                  .reference_logprob = -1,
                  .candidate_logprob = -2,
                  .candidate_token = 5,
                  .agree = !changed,
                  .reference_margin = changed ? 2.0 : 0.0,
                  .candidate_margin = changed ? 1.0 : 0.0}};
  if (changed) d.first_divergence = 1;
  d.reference_token = d.candidate_token = kHostile;
  d.answer = changed ? std::string("the end ") + kHostile : "the start";
  return d;
}

Comparison comparison() {
  Comparison c;
  c.reference = {.name = kHostile, .format = kHostile, .bytes = 1000, .backend = kHostile};
  c.answers = {{kHostile, "the start", {1, 2}}, {"second", "the start", {1, 2}}};
  for (const bool noise : {true, false}) {
    CompareColumn column;
    column.model = c.reference;
    column.noise_floor = noise;
    column.prompts = {drift(!noise), drift(false)};
    column.drift = summarize(column.prompts);
    c.columns.push_back(column);
  }
  return c;
}

Comparison choices() {
  Comparison c = comparison();
  c.answers.clear();
  ChoiceItem item;
  item.id = item.question = kHostile;
  item.options = {kHostile, "B"};
  item.unknown = 0;
  item.stereotyped = 1;
  c.items = {item};
  c.reference_scores = {{-1, -2}};
  for (CompareColumn& column : c.columns) {
    column.prompts.clear();
    column.scores = {column.noise_floor ? std::vector<double>{-1.1, -2} : std::vector<double>{-2, -1}};
    column.choices = summarize(c.items, c.reference_scores, column.scores);
  }
  return c;
}

TEST(Report, NothingFromAModelBecomesMarkup) {
  for (const Comparison& c : {comparison(), choices()}) {
    const std::string page = html_report(c);
    EXPECT_THAT(page, HasSubstr("&lt;script&gt;"));
    EXPECT_THAT(page, Not(HasSubstr("<script")));
    EXPECT_THAT(page, Not(HasSubstr("\x1b")));
    EXPECT_THAT(page, Not(HasSubstr("\xff")));
    EXPECT_THAT(page, Not(HasSubstr("nan")));
    EXPECT_THAT(text_report(c), Not(HasSubstr("\x1b")));
    EXPECT_THAT(text_report(c), Not(HasSubstr("\u009b"))) << "some terminals take it for ESC [";
    EXPECT_TRUE(nlohmann::json::accept(json_report(c)));
  }
}

TEST(Report, EscapesAndReplaces) {
  EXPECT_EQ(escape_html("a<b>&\"'"), "a&lt;b&gt;&amp;&quot;&#39;");
  EXPECT_EQ(escape_html("é\n\x01\xc3"), "é\n\ufffd\ufffd");
  EXPECT_EQ(escape_html("\xed\xa0\x80"), "\ufffd\ufffd\ufffd");  // a surrogate
}

TEST(Report, MarksTheFirstWordThatDiffers) {
  EXPECT_THAT(html_report(comparison()), HasSubstr("<span class=\"same\">the </span><mark>end</mark>"));
}

// The y of every label that names a curve at its end.
std::vector<double> end_labels(const std::string& chart) {
  std::vector<double> result;
  const std::regex label("y=\"(-?[0-9.]+)\" style=\"[^\"]*\" class=\"end\"");
  for (std::sregex_iterator i(chart.begin(), chart.end(), label), end; i != end; ++i)
    result.push_back(std::stod((*i)[1]));
  return result;
}

TEST(Report, CurvesAreNamedWhereTheyEnd) {
  Comparison c = comparison();
  for (CompareColumn& column : c.columns) column.prompts = {drift(false), drift(false)};
  PromptDrift lost = drift(true);
  lost.first_divergence = 0;
  for (int i = 0; i < 4; ++i) {
    c.columns.push_back(c.columns.back());
    c.columns.back().prompts = {lost, lost};
  }
  // Two curves end at the top, 14 from the chart's edge, four at the bottom, at 286; text lies 4 below.
  EXPECT_EQ(end_labels(survival_chart(c)), (std::vector<double>{18, 35, 239, 256, 273, 290}));
  while (c.columns.size() < 40) c.columns.push_back(c.columns.back());
  for (const double y : end_labels(survival_chart(c))) EXPECT_TRUE(y >= 17.9 && y <= 290.1) << y;
}

TEST(Report, OnePositionIsALine) {
  Comparison c = comparison();
  c.answers = {{"first", "a", {1}}, {"second", "b", {1}}};
  for (CompareColumn& column : c.columns)
    for (PromptDrift& prompt : column.prompts) prompt.positions.resize(1);
  EXPECT_THAT(agreement_chart(c), ContainsRegex("d=\"M56.0,[0-9.]+H710.0\""));
}

TEST(Report, CountsChangesBeyondTheNoise) {
  Comparison c = comparison();
  EXPECT_EQ(changed_beyond_noise(c, c.columns[1]), 1u);
  c.columns[0].prompts = {drift(true), drift(false)};
  EXPECT_EQ(changed_beyond_noise(c, c.columns[1]), 0u);
  const Comparison items = choices();
  EXPECT_EQ(flips_beyond_noise(items, items.columns[1]), 1u);
  EXPECT_EQ(flips_beyond_noise(items, items.columns[0]), std::nullopt);
}

TEST(Report, JsonHasTheFigures) {
  const auto json = nlohmann::json::parse(json_report(comparison()));
  EXPECT_EQ(json["columns"][1]["drift"]["answers_changed"], 1);
  EXPECT_EQ(json["columns"][1]["prompts"][0]["first_divergence"]["position"], 1);
  EXPECT_TRUE(json["columns"][0]["noise_floor"].get<bool>());
  const auto items = nlohmann::json::parse(json_report(choices()));
  EXPECT_EQ(items["columns"][1]["choices"]["unknown_to_stereotype"], 1);
  EXPECT_THAT(text_report(choices()), HasSubstr("2.72 : 1"));
}

}  // namespace
}  // namespace tramontane
