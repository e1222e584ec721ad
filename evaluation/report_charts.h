// The charts of the HTML report, each an SVG element. A column's colour is the CSS variable --c0 (noise
// floor), --c1,
// --c2, … that column_color names. Pure functions.
#pragma once

#include <string>

#include "evaluation/compare.h"

namespace tramontane {

std::string column_color(const Comparison& comparison, size_t column);  // "var(--c3)"
std::string column_label(const CompareColumn& column);                  // "noise floor" or the model's name

// A row a column: how many positions have which KL divergence, on a logarithmic axis.
std::string kl_histogram(const Comparison& comparison);
// Share of answers that are still the reference's after so many tokens.
std::string survival_chart(const Comparison& comparison);
// Share of positions, by their place in the answer, where the likeliest token is the reference's.
std::string agreement_chart(const Comparison& comparison);
// A dot an answer that changed: how sure the reference was of its token where they parted.
std::string divergence_strip(const Comparison& comparison);
// A panel a column, a dot an item: the preference of the reference's option over its rival, before and after.
std::string flip_scatter(const Comparison& comparison);
// A bar a column: where the items went whose answer by the reference was "unknown".
std::string unknown_bars(const Comparison& comparison);

}  // namespace tramontane
