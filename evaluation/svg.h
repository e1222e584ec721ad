// Just enough SVG for the report's charts: marks with coordinates, tooltips, and a linear scale. Everything
// that comes from outside goes through escape_html.
#pragma once

#include <string>
#include <string_view>

namespace tramontane {

// For element content and quoted attributes. Control characters other than tab and newline, and bytes that
// are not UTF-8, become U+FFFD.
std::string escape_html(std::string_view text);

// Maps low..high to from..to, values outside to the nearer end.
struct Scale {
  double low, high, from, to;
  double operator()(double value) const;
};

class Svg {
 public:
  Svg(int width, int height, std::string_view label);  // label: what the picture shows, for screen readers
  // `attributes` is trusted: class names and styles of our own.
  void line(double x1, double y1, double x2, double y2, std::string_view attributes);
  void rect(double x, double y, double width, double height, std::string_view attributes,
            std::string_view tooltip = {});
  void circle(double x, double y, double radius, std::string_view attributes, std::string_view tooltip = {});
  void text(double x, double y, std::string_view attributes, std::string_view content);
  void path(std::string_view data, std::string_view attributes);
  std::string finish();

 private:
  void element(std::string start, std::string_view tooltip);
  std::string out_;
};

}  // namespace tramontane
