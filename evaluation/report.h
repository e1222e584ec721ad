// A comparison as text for the terminal, as JSON and as one HTML page that needs nothing else. Pure
// functions.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "evaluation/compare.h"

namespace tramontane {

std::string text_report(const Comparison& comparison);
std::string json_report(const Comparison& comparison);
std::string html_report(const Comparison& comparison);

// A figure of the report: its name and one cell a column, used by the terminal and the page alike.
struct ReportRow {
  std::string name, meaning;
  std::vector<std::string> cells;
};
std::vector<ReportRow> report_rows(const Comparison& comparison);

// "3.2", "410", "1.8e+05": exp(margin) for people.
std::string ratio_text(double margin);

}  // namespace tramontane
