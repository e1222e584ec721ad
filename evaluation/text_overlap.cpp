#include "evaluation/text_overlap.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <map>
#include <span>

namespace tramontane {
namespace {

constexpr int kBleuOrder = 4;

bool is_digit(char c) {
  return c >= '0' && c <= '9';
}

// Lower-cased runs of [a-z0-9]. Beyond ASCII, Python's lower() gives ASCII letters for two characters only:
// U+212A (kelvin sign) is "k", U+0130 (dotted capital I) is "i" and a combining dot, which ends the run.
std::vector<std::string> alphanumeric_runs(std::string_view text) {
  std::vector<std::string> runs;
  std::string run;
  const auto end_run = [&] {
    if (!run.empty()) runs.push_back(std::move(run));
    run.clear();
  };
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (c >= 'A' && c <= 'Z') {
      run += static_cast<char>(c - 'A' + 'a');
    } else if ((c >= 'a' && c <= 'z') || is_digit(c)) {
      run += c;
    } else if (text.substr(i).starts_with("\u212a")) {
      run += 'k';
      i += 2;
    } else if (text.substr(i).starts_with("\u0130")) {
      run += 'i';
      i += 1;
      end_run();
    } else {
      end_run();
    }
  }
  end_run();
  return runs;
}

size_t longest_common_subsequence(std::span<const std::string> a, std::span<const std::string> b) {
  std::vector<size_t> row(b.size() + 1);
  for (const std::string& word : a) {
    size_t diagonal = 0;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = word == b[j - 1] ? diagonal + 1 : std::max(row[j], row[j - 1]);
      diagonal = above;
    }
  }
  return row.back();
}

// Bytes of the white space (as Python's str.split and rstrip know it) at the start of `text`; 0: none.
size_t leading_space(std::string_view text) {
  const unsigned char c = text.empty() ? 0 : static_cast<unsigned char>(text.front());
  if ((c >= 9 && c <= 13) || (c >= 28 && c <= 32)) return 1;
  static constexpr std::array<std::string_view, 19> wide = {
      "\u0085", "\u00a0", "\u1680", "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006",
      "\u2007", "\u2008", "\u2009", "\u200a", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000"};
  for (const std::string_view space : wide) {
    if (text.starts_with(space)) return space.size();
  }
  return 0;
}

std::vector<std::string> split(std::string_view text) {
  std::vector<std::string> words;
  std::string word;
  for (size_t i = 0; i < text.size();) {
    const size_t space = leading_space(text.substr(i));
    if (space == 0) {
      word += text[i++];
      continue;
    }
    i += space;
    if (!word.empty()) words.push_back(std::move(word));
    word.clear();
  }
  if (!word.empty()) words.push_back(std::move(word));
  return words;
}

std::string_view strip_right(std::string_view text) {
  size_t end = 0;
  for (size_t i = 0; i < text.size();) {
    const size_t space = leading_space(text.substr(i));
    i += std::max<size_t>(space, 1);
    if (space == 0) end = i;
  }
  return text.substr(0, end);
}

std::string replace_all(std::string text, std::string_view from, std::string_view to) {
  for (size_t at = 0; (at = text.find(from, at)) != std::string::npos; at += to.size()) {
    text.replace(at, from.size(), to);
  }
  return text;
}

// Python's re.sub for a pattern of two one-character classes: `before`, `between` and `after` are what the
// replacement puts around the two characters.
template <typename First, typename Second>
std::string separate(std::string_view text, First first, Second second, std::string_view before,
                     std::string_view after) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (i + 1 == text.size() || !first(text[i]) || !second(text[i + 1])) {
      out += text[i];
      continue;
    }
    out.append(before).append(1, text[i]).append(" ").append(1, text[i + 1]).append(after);
    ++i;
  }
  return out;
}

// The characters of sacrebleu's first class; apostrophe, comma, hyphen and full stop are not among them.
bool is_symbol(char c) {
  return (c >= ' ' && c <= '&') || (c >= '(' && c <= '+') || c == '/' || (c >= ':' && c <= '@') ||
         (c >= '[' && c <= '`') || (c >= '{' && c <= '~');
}

std::map<std::vector<std::string>, int> count_ngrams(std::span<const std::string> words, size_t n) {
  std::map<std::vector<std::string>, int> counts;
  for (size_t i = 0; i + n <= words.size(); ++i) ++counts[{words.begin() + i, words.begin() + i + n}];
  return counts;
}

}  // namespace

double rouge_l_f1(std::string_view candidate, std::string_view reference) {
  const auto a = alphanumeric_runs(candidate), b = alphanumeric_runs(reference);
  if (a.empty() || b.empty()) return 0;
  const auto common = static_cast<double>(longest_common_subsequence(a, b));
  if (common == 0) return 0;
  const double precision = common / static_cast<double>(a.size());
  const double recall = common / static_cast<double>(b.size());
  return 2 * precision * recall / (precision + recall);
}

std::vector<std::string> tokenize_13a(std::string_view text) {
  std::string line(strip_right(text));
  line = replace_all(std::move(line), "<skipped>", "");
  line = replace_all(std::move(line), "-\n", "");
  line = replace_all(std::move(line), "\n", " ");
  line = replace_all(std::move(line), "&quot;", "\"");
  line = replace_all(std::move(line), "&amp;", "&");
  line = replace_all(std::move(line), "&lt;", "<");
  line = replace_all(std::move(line), "&gt;", ">");

  std::string spaced = " ";
  for (const char c : line) is_symbol(c) ? spaced.append(" ").append(1, c).append(" ") : spaced.append(1, c);
  spaced += ' ';
  const auto other = [](char c) { return !is_digit(c); };
  const auto point = [](char c) { return c == '.' || c == ','; };
  const auto hyphen = [](char c) { return c == '-'; };
  spaced = separate(spaced, other, point, "", " ");
  spaced = separate(spaced, point, other, " ", "");
  spaced = separate(spaced, is_digit, hyphen, "", " ");
  return split(spaced);
}

BleuScore sentence_bleu(std::string_view candidate, std::string_view reference) {
  const auto words = tokenize_13a(candidate), expected = tokenize_13a(reference);
  BleuScore result;
  if (expected.empty() || words.empty()) return result;
  const auto n_words = static_cast<double>(words.size()), n_expected = static_cast<double>(expected.size());
  result.length_ratio = n_words / n_expected;

  double log_sum = 0, smoothing = 1;
  int order = 0;
  bool any = false;
  for (size_t n = 1; n <= std::min<size_t>(kBleuOrder, words.size()); ++n) {
    const auto theirs = count_ngrams(expected, n);
    int correct = 0;
    for (const auto& [ngram, count] : count_ngrams(words, n)) {
      const auto found = theirs.find(ngram);
      if (found != theirs.end()) correct += std::min(count, found->second);
    }
    any = any || correct > 0;
    if (correct == 0) smoothing *= 2;
    const auto total = static_cast<double>(words.size() - n + 1);
    log_sum += std::log(100.0 * (correct == 0 ? 1 / smoothing : correct) / total);
    order = static_cast<int>(n);
  }
  if (!any) return result;
  const double brevity = n_words < n_expected ? std::exp(1 - n_expected / n_words) : 1;
  result.score = brevity * std::exp(log_sum / order);
  return result;
}

}  // namespace tramontane
