#include "evaluation/svg.h"

#include <fmt/format.h>

#include <algorithm>

namespace tramontane {
namespace {

// Bytes of the well-formed UTF-8 character at the start of `text`; 0: none.
size_t character_bytes(std::string_view text) {
  const auto byte = [&](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&](size_t i) { return (byte(i) & 0xc0u) == 0x80u; };
  const unsigned c = byte(0);
  if (c < 0x80) return 1;
  if (c >= 0xc2 && c <= 0xdf) return follows(1) ? 2 : 0;
  if (c >= 0xe0 && c <= 0xef) {
    if (!follows(1) || !follows(2) || (c == 0xe0 && byte(1) < 0xa0) || (c == 0xed && byte(1) > 0x9f))
      return 0;
    return 3;
  }
  if (c < 0xf0 || c > 0xf4 || !follows(1) || !follows(2) || !follows(3)) return 0;
  return (c == 0xf0 && byte(1) < 0x90) || (c == 0xf4 && byte(1) > 0x8f) ? 0 : 4;
}

}  // namespace

std::string escape_html(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size();) {
    const size_t bytes = character_bytes(text.substr(i));
    const char c = text[i];
    const bool control = (c >= 0 && c < 32 && c != '\t' && c != '\n') || c == 127;
    if (bytes == 0 || control) {
      out += "\ufffd";
    } else if (c == '&') {
      out += "&amp;";
    } else if (c == '<') {
      out += "&lt;";
    } else if (c == '>') {
      out += "&gt;";
    } else if (c == '"') {
      out += "&quot;";
    } else if (c == '\'') {
      out += "&#39;";
    } else {
      out += text.substr(i, bytes);
    }
    i += std::max<size_t>(bytes, 1);
  }
  return out;
}

double Scale::operator()(double value) const {
  return from + (std::clamp(value, low, high) - low) / (high - low) * (to - from);
}

Svg::Svg(int width, int height, std::string_view label)
    : out_(fmt::format("<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{}\">\n", width, height,
                       escape_html(label))) {}

void Svg::element(std::string start, std::string_view tooltip) {
  out_ += start;
  if (tooltip.empty()) {
    out_ += "/>\n";
    return;
  }
  const std::string name = start.substr(1, start.find(' ') - 1);
  out_ += fmt::format("><title>{}</title></{}>\n", escape_html(tooltip), name);
}

void Svg::line(double x1, double y1, double x2, double y2, std::string_view attributes) {
  element(fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" {}", x1, y1, x2, y2,
                      attributes),
          {});
}

void Svg::rect(double x, double y, double width, double height, std::string_view attributes,
               std::string_view tooltip) {
  element(fmt::format("<rect x=\"{:.1f}\" y=\"{:.1f}\" width=\"{:.1f}\" height=\"{:.1f}\" {}", x, y, width,
                      height, attributes),
          tooltip);
}

void Svg::circle(double x, double y, double radius, std::string_view attributes, std::string_view tooltip) {
  element(fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{:.1f}\" {}", x, y, radius, attributes),
          tooltip);
}

void Svg::text(double x, double y, std::string_view attributes, std::string_view content) {
  out_ +=
      fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" {}>{}</text>\n", x, y, attributes, escape_html(content));
}

void Svg::path(std::string_view data, std::string_view attributes) {
  element(fmt::format("<path d=\"{}\" {}", data, attributes), {});
}

std::string Svg::finish() {
  return out_ + "</svg>\n";
}

}  // namespace tramontane
