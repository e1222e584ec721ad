#include "evaluation/compare.h"

#include <algorithm>
#include <stdexcept>

namespace tramontane {
namespace {

namespace fs = std::filesystem;

// As it was given, links not followed: a download cache calls what they lead to by a hash.
fs::path whole_path(const fs::path& path) {
  const fs::path whole = fs::absolute(path).lexically_normal();
  return whole.has_filename() ? whole : whole.parent_path();  // "models/q4/"
}

// The last `folders` + 1 components of an absolute path, of a file without its .gguf.
std::string end_of(const fs::path& whole, int folders) {
  fs::path name = whole.extension() == ".gguf" ? whole.stem() : whole.filename();
  for (fs::path folder = whole.parent_path(); folders > 0; --folders, folder = folder.parent_path())
    name = folder.filename() / name;
  return name.string();
}

// As much of the path's end as tells it from the others: "q4", or "old/q4" beside "new/q4".
std::string name_among(const fs::path& path, const std::vector<fs::path>& all) {
  const fs::path whole = whole_path(path);
  const auto ambiguous = [&](int folders) {
    return std::any_of(all.begin(), all.end(), [&](const fs::path& p) {
      const fs::path other = whole_path(p);
      return other != whole && end_of(other, folders) == end_of(whole, folders);
    });
  };
  const auto depth = static_cast<int>(std::distance(whole.begin(), whole.end()));
  for (int folders = 0; folders < depth; ++folders) {
    if (!ambiguous(folders)) return end_of(whole, folders);
  }
  return path.string();  // a folder beside a .gguf of its name
}

// The whole run: what is asked, and each model's turn.
class Session {
 public:
  Session(const CompareInput& input, const ChatTemplate& chat_template, const Tokenizer& tokenizer,
          const MakeBackend& make_backend, const CompareProgress& progress)
      : input_(input),
        make_backend_(make_backend),
        progress_(progress),
        tokenizer_(tokenizer),
        study_(tokenizer, questions(input, chat_template), input.max_tokens),
        choices_(encode_choices(input, chat_template, tokenizer)) {}

  Comparison run() {
    check_models();
    all_ = input_.candidates;
    all_.push_back(input_.reference);
    result_.max_tokens = input_.max_tokens;
    result_.items = input_.items;
    with_model(input_.reference, name_among(input_.reference, all_), false, result_.reference,
               [&](ModelRunner& model) {
                 result_.vocab_size = model.vocab_size();
                 if (!input_.prompts.empty()) study_.run_reference(model, step(result_.reference.name));
                 if (!choices_.empty()) result_.reference_scores = score(model, result_.reference.name);
               });
    result_.answers = study_.answers();
    if (input_.noise_floor) add_column(input_.reference, "F32 arithmetic", true);
    for (const fs::path& candidate : input_.candidates)
      add_column(candidate, name_among(candidate, all_), false);
    return std::move(result_);
  }

 private:
  static std::vector<PromptStudy::Question> questions(const CompareInput& input,
                                                      const ChatTemplate& chat_template) {
    std::vector<PromptStudy::Question> questions;
    for (const Prompt& prompt : input.prompts) {
      questions.push_back({prompt.text, encode_prompt(chat_template, prompt)});
    }
    return questions;
  }

  static std::vector<EncodedChoice> encode_choices(const CompareInput& input,
                                                   const ChatTemplate& chat_template,
                                                   const Tokenizer& tokenizer) {
    std::vector<EncodedChoice> choices;
    for (const ChoiceItem& item : input.items) {
      EncodedChoice choice{encode_prompt(chat_template, prompt_of_text(item.question)), {}};
      for (const std::string& option : item.options) {
        choice.options.push_back(tokenizer.encode(option));
        if (choice.options.back().empty()) {
          throw std::runtime_error("item " + item.id + ": option \"" + option + "\" has no tokens");
        }
      }
      choices.push_back(std::move(choice));
    }
    return choices;
  }

  int32_t longest() const {
    return std::max(input_.prompts.empty() ? 1 : study_.longest(), longest_choice(choices_));
  }

  // What can be said before the first model has worked for minutes.
  void check_models() const {
    const ModelConfig reference = Checkpoint::open(input_.reference)->config();
    const int32_t expected = reference.vocab_size;
    if (tokenizer_.vocab_size() > expected) {
      throw std::runtime_error(input_.reference.string() + ": the tokenizer has " +
                               std::to_string(tokenizer_.vocab_size()) + " pieces, the model " +
                               std::to_string(expected) + " embeddings: they do not belong together");
    }
    check_positions(reference, input_.reference.string(), longest());
    for (const fs::path& candidate : input_.candidates) {
      const ModelConfig config = Checkpoint::open(candidate)->config();
      check_positions(config, candidate.string(), longest());
      const int32_t found = config.vocab_size;
      if (found == expected) continue;
      throw std::runtime_error(candidate.string() + ": a vocabulary of " + std::to_string(found) +
                               " tokens, the reference " + input_.reference.string() + " has " +
                               std::to_string(expected) + ": only equal vocabularies can be compared");
    }
  }

  CompareProgress step(const std::string& name) const {
    return [this, name](const std::string& what, size_t done, size_t total) {
      progress_(name + ": " + what, done, total);
    };
  }

  template <typename Use>
  void with_model(const fs::path& path, const std::string& name, bool f32, ModelFacts& facts,
                  const Use& use) {
    const auto checkpoint = Checkpoint::open(path);
    const auto backend = make_backend_(f32);
    facts = {name, checkpoint->format(), checkpoint->weight_bytes(), backend->description()};
    ModelRunner model(*backend, *checkpoint, path.string(), longest(), [&](uint64_t done, uint64_t total) {
      progress_(name + ": loading, MB", done / 1'000'000, total / 1'000'000);
    });
    use(model);
  }

  ChoiceScores score(ModelRunner& model, const std::string& name) const {
    return score_choices(model, choices_,
                         [&](size_t done) { progress_(name + ": scoring items", done, choices_.size()); });
  }

  void add_column(const fs::path& path, const std::string& name, bool noise_floor) {
    CompareColumn column;
    column.noise_floor = noise_floor;
    with_model(path, name, noise_floor, column.model, [&](ModelRunner& model) {
      if (!input_.prompts.empty()) column.prompts = study_.run_candidate(model, step(name));
      if (!choices_.empty()) column.scores = score(model, name);
    });
    column.drift = summarize(column.prompts);
    column.choices = summarize(result_.items, result_.reference_scores, column.scores);
    result_.columns.push_back(std::move(column));
  }

  const CompareInput& input_;
  const MakeBackend& make_backend_;
  const CompareProgress& progress_;
  const Tokenizer& tokenizer_;
  PromptStudy study_;
  std::vector<EncodedChoice> choices_;
  std::vector<fs::path> all_;
  Comparison result_;
};

}  // namespace

std::optional<size_t> changed_beyond_noise(const Comparison& comparison, const CompareColumn& column) {
  const CompareColumn* noise = comparison.noise();
  if (!noise || column.noise_floor) return {};
  double level = 0;
  for (const PromptDrift& prompt : noise->prompts) {
    for (const PositionDrift& p : prompt.positions) level = std::max(level, p.reference_margin);
  }
  return std::count_if(column.prompts.begin(), column.prompts.end(), [&](const PromptDrift& prompt) {
    return prompt.first_divergence && prompt.positions[*prompt.first_divergence].reference_margin > level;
  });
}

std::optional<size_t> flips_beyond_noise(const Comparison& comparison, const CompareColumn& column) {
  const CompareColumn* noise = comparison.noise();
  if (!noise || column.noise_floor) return {};
  return std::count_if(column.choices.flips.begin(), column.choices.flips.end(), [&](const ChoiceFlip& flip) {
    return flip.reference_margin > noise->choices.max_margin_change;
  });
}

Comparison compare(const CompareInput& input, const ChatTemplate& chat_template, const Tokenizer& tokenizer,
                   const MakeBackend& make_backend, const CompareProgress& progress) {
  return Session(input, chat_template, tokenizer, make_backend, progress).run();
}

}  // namespace tramontane
