#include "engine/weights/quantize.h"

#include <algorithm>
#include <array>
#include <map>
#include <memory>
#include <stdexcept>
#include <thread>

#include "engine/weights/checkpoint.h"
#include "engine/weights/checkpoint_writer.h"
#include "engine/weights/mapped_file.h"
#include "engine/weights/names.h"
#include "engine/weights/quantize_config.h"
#include "engine/weights/quantize_tensor.h"

namespace tramontane {
namespace fs = std::filesystem;
namespace {

using Json = nlohmann::ordered_json;

struct TargetRow {
  const char* name;
  QuantizeTarget target;
  Encoding encoding;
  int bits;
};
constexpr std::array<TargetRow, 7> kTargets{{{"bf16", QuantizeTarget::bf16, Encoding::dense, 16},
                                             {"fp4", QuantizeTarget::fp4, Encoding::fp4, 4},
                                             {"nf4", QuantizeTarget::nf4, Encoding::nf4, 4},
                                             {"q8", QuantizeTarget::q8, Encoding::mlx, 8},
                                             {"q6", QuantizeTarget::q6, Encoding::mlx, 6},
                                             {"q4", QuantizeTarget::q4, Encoding::mlx, 4},
                                             {"q3", QuantizeTarget::q3, Encoding::mlx, 3}}};

const TargetRow& row_of(QuantizeTarget target) {
  return *std::ranges::find(kTargets, target, &TargetRow::target);
}

void check_group(const QuantizeOptions& options) {
  const Encoding encoding = row_of(options.to).encoding;
  const bool fits = encoding == Encoding::mlx
                        ? options.group == 32 || options.group == 64 || options.group == 128
                        : options.group == 64;
  if (fits) return;
  throw std::runtime_error("--group " + std::to_string(options.group) + " is not supported for " +
                           row_of(options.to).name + ": expected " +
                           (encoding == Encoding::mlx ? "32, 64 or 128" : "64"));
}

// A weight of the source, and where it goes.
struct Item {
  Role role;
  int32_t layer;
  uint64_t source_bytes = 0;
  TensorPlan plan;
};

bool is_projection(Role role) {
  return role == Role::wq || role == Role::wk || role == Role::wv || role == Role::wo || role == Role::w1 ||
         role == Role::w2 || role == Role::w3;
}

class Quantizer {
 public:
  Quantizer(const QuantizeOptions& options, const QuantizeProgress& progress)
      : options_(options), progress_(progress), source_(Checkpoint::open(options.model)) {
    has_config_ = fs::exists(options.model / "config.json");
    if (has_config_) config_ = read_ordered(options.model / "config.json");
    if (fs::exists(options.model / "generation_config.json"))
      generation_ = read_ordered(options.model / "generation_config.json");
    for (TensorInfo& info : source_->tensors()) infos_.emplace(info.role, std::move(info));
    threads_ = options.threads > 0 ? options.threads
                                   : static_cast<int>(std::max(1u, std::thread::hardware_concurrency()));
  }

  QuantizeReport run() {
    plan();
    std::vector<TensorSpec> specs;
    for (const Item& item : items_) {
      for (TensorSpec& spec : specs_of(item.plan)) specs.push_back(std::move(spec));
    }
    for (const TensorSpec& spec : specs) report_.bytes_written += spec.bytes;
    CheckpointWriter writer(options_.out, specs, layout());
    for (const Item& item : items_) write(item, writer);
    copy_companions(writer);
    const bool tied = !source_->has_output();
    Json config = has_config_ ? config_ : make_hf_config(source_->config(), tied);
    // Where the key is missing, mlx_lm takes the embeddings to be tied and transformers takes them not to be.
    if (!config.contains("tie_word_embeddings")) config["tie_word_embeddings"] = tied;
    writer.finish(quantized_config_text(config, generation_, options_, row_of(options_.to).bits));
    return std::move(report_);
  }

 private:
  static Json read_ordered(const fs::path& path) {
    const auto file = MappedFile::open(path);
    const auto* text = reinterpret_cast<const char*>(file->bytes().data());
    return Json::parse(text, text + file->bytes().size());
  }

  // Embeddings, layers, norm, head: the order in which mlx_lm fills its files.
  void plan() {
    add(Role::tok_embeddings, 0);
    for (int32_t layer = 0; layer < source_->config().n_layers; ++layer) {
      for (const Role role : {Role::wq, Role::wk, Role::wv, Role::wo, Role::w1, Role::w2, Role::w3,
                              Role::attention_norm, Role::ffn_norm}) {
        add(role, layer);
      }
    }
    add(Role::norm, 0);
    if (source_->has_output()) add(Role::output, 0);
    if (options_.to != QuantizeTarget::bf16 && report_.quantized == 0) {
      throw std::runtime_error(options_.model.string() + ": group size " + std::to_string(options_.group) +
                               " divides the rows of no matrix: nothing to quantise");
    }
  }

  void add(Role role, int32_t layer) {
    const TensorInfo& info = infos_.at(role_name(role, layer));
    const WeightShape shape = expected_shape(role, source_->config());
    Item item{role, layer, info.bytes, {}};
    item.plan.name = tensor_name(Naming::hugging_face, role, layer);
    item.plan.rows = shape.rows;
    item.plan.cols = shape.cols;
    item.plan.dtype = dtype_of(info);
    choose_encoding(item);
    report_.bytes_read += info.bytes;
    items_.push_back(std::move(item));
  }

  // The dtype that the library would have the weight in: the config's, else the file's own.
  DType dtype_of(const TensorInfo& info) const {
    const bool dense = info.format == "F32" || info.format == "F16" || info.format == "BF16";
    if (has_config_ && !dense) {
      throw std::runtime_error(options_.model.string() + ": tensor " + info.name + " is quantised already (" +
                               info.format + "); give the model it was made from");
    }
    if (!has_config_ || options_.to == QuantizeTarget::bf16) return DType::bf16;
    std::vector<const char*> keys = {"torch_dtype"};  // mlx_lm knows no other
    if (row_of(options_.to).encoding != Encoding::mlx) keys.push_back("dtype");
    for (const char* key : keys) {
      if (!config_.contains(key)) continue;
      if (config_[key] == "bfloat16") return DType::bf16;
      if (config_[key] == "float16") return DType::f16;
      if (config_[key] == "float32") return DType::f32;
    }
    return info.format == "F32" ? DType::f32 : info.format == "F16" ? DType::f16 : DType::bf16;
  }

  void choose_encoding(Item& item) {
    TensorPlan& plan = item.plan;
    const TargetRow& target = row_of(options_.to);
    const bool matrix = plan.rows > 0;
    if (target.encoding == Encoding::dense || !matrix) return;
    if (target.encoding != Encoding::mlx && !is_projection(item.role)) return;
    if (plan.cols % options_.group != 0) {
      // bitsandbytes would let blocks run over rows; mlx_lm leaves the matrix as it is.
      if (target.encoding != Encoding::mlx) {
        throw std::runtime_error("tensor " + plan.name + ": rows of " + std::to_string(plan.cols) +
                                 " are not a multiple of the block size " + std::to_string(options_.group));
      }
      report_.left_dense.push_back(plan.name);
      return;
    }
    plan.encoding = target.encoding;
    plan.bits = target.bits;
    plan.group = options_.group;
    ++report_.quantized;
  }

  CheckpointLayout layout() const {
    CheckpointLayout layout;
    const bool mlx = row_of(options_.to).encoding == Encoding::mlx;
    layout.made_by = mlx ? "mlx" : "pt";
    layout.index_always = mlx;
    layout.shard_bytes = mlx ? uint64_t{5} << 30 : uint64_t{5'000'000'000};  // each library's 5 GB
    if (options_.shard_bytes > 0) layout.shard_bytes = options_.shard_bytes;
    for (const Item& item : items_) {
      layout.parameters += static_cast<uint64_t>(std::max<int64_t>(item.plan.rows, 1) * item.plan.cols);
    }
    return layout;
  }

  // Row `row` of Hugging Face's order (each head's first halves, then its second halves) in the canonical
  // matrix, whose RoPE pairs lie side by side.
  int64_t source_row(Role role, int64_t row) const {
    if (role != Role::wq && role != Role::wk) return row;
    const int64_t d = source_->config().head_dim;
    return row / d * d + row % (d / 2) * 2 + row % d / (d / 2);
  }

  std::vector<std::vector<std::byte>> encode(const Item& item) {
    const auto rows = static_cast<uint64_t>(std::max<int64_t>(item.plan.rows, 1));
    const RowProgress progress = [&](int64_t done) {
      progress_(done_ + item.source_bytes * static_cast<uint64_t>(done) / rows, report_.bytes_read);
    };
    if (item.plan.rows == 0) {
      const std::vector<float> values = source_->vector(item.role, item.layer);
      const RowReader copy = [&](int64_t, std::span<float> out) { std::ranges::copy(values, out.begin()); };
      return encode_tensor(item.plan, copy, threads_, progress);
    }
    const HostMatrix matrix = source_->matrix(item.role, item.layer);
    const RowReader dequantize = [&](int64_t row, std::span<float> out) {
      dequantize_row(matrix, source_row(item.role, row), out);
    };
    return encode_tensor(item.plan, dequantize, threads_, progress);
  }

  void write(const Item& item, CheckpointWriter& writer) {
    const auto parts = encode(item);
    source_->release_pages();
    const std::vector<TensorSpec> specs = specs_of(item.plan);
    for (size_t i = 0; i < specs.size(); ++i) writer.write(specs[i].name, parts[i]);
    done_ += item.source_bytes;
  }

  // Tokenizer and generation settings, whatever of them there is.
  void copy_companions(CheckpointWriter& writer) const {
    if (!fs::is_directory(options_.model)) return;
    constexpr std::array others{
        "generation_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
        "chat_template.jinja",    "chat_template.json",      "tekken.json"};
    for (const fs::directory_entry& entry : fs::directory_iterator(options_.model)) {
      const std::string name = entry.path().filename().string();
      const bool wanted = name.starts_with("tokenizer") || std::ranges::find(others, name) != others.end();
      if (!wanted || !entry.is_regular_file() || entry.file_size() == 0) continue;
      writer.write_file(name, MappedFile::open(entry.path())->bytes());
    }
  }

  const QuantizeOptions& options_;
  const QuantizeProgress& progress_;
  std::unique_ptr<Checkpoint> source_;
  bool has_config_ = false;
  Json config_, generation_;
  std::map<std::string, TensorInfo> infos_;  // by role
  std::vector<Item> items_;
  QuantizeReport report_;
  int threads_ = 1;
  uint64_t done_ = 0;
};

}  // namespace

QuantizeTarget parse_quantize_target(const std::string& name) {
  std::string choices;
  for (const TargetRow& row : kTargets) {
    if (name == row.name) return row.target;
    choices += std::string(choices.empty() ? "" : ", ") + row.name;
  }
  throw std::runtime_error("--to \"" + name + "\" is not a format; expected one of " + choices);
}

QuantizeReport quantize_checkpoint(const QuantizeOptions& options, const QuantizeProgress& progress) {
  check_group(options);
  return Quantizer(options, progress).run();
}

}  // namespace tramontane
