// Paged attention against FP64 over shuffled pages, and bit for bit against itself: however a batch is cut
// into calls, and under every plan, a row has the same bits.
#include "cuda/attention.h"

#include <stdexcept>
#include <tuple>

#include "tests/cuda/paged_sequences.h"

namespace tramontane::cuda {
namespace {

// Plans by which one kernel does all the work, shared out among blocks in other ways.
Adjust prefilled() {
  return [](AttentionPlan& plan) {
    plan.decode_columns = plan.decode_tiles = plan.splits = 0;
    plan.prefill_tiles = 200;
  };
}
Adjust decoded(int32_t splits, int32_t max_partials) {
  return [=](AttentionPlan& plan) {
    const int32_t room = plan.max_partials * plan.partial_rows / kDecodeTile;
    plan = {.decode_columns = 1 << 20,
            .decode_tiles = 5,  // 10 rows of 8 heads, the most that is run so
            .splits = splits,
            .prefill_tiles = 0,
            .max_partials = std::min(max_partials, room),
            .partial_rows = kDecodeTile};
  };
}

std::string name_of_shape(const testing::TestParamInfo<AttentionShape>& info) {
  const AttentionShape& s = info.param;
  return "heads" + std::to_string(s.n_heads) + "over" + std::to_string(s.n_kv_heads) + "of" +
         std::to_string(s.head_dim) +
         (s.sliding_window > 0 ? "window" + std::to_string(s.sliding_window) : "");
}

class AttentionShapes : public testing::TestWithParam<AttentionShape> {};

// Decode rows, short and long prompts, whole and in part, and padding, in one call.
TEST_P(AttentionShapes, MixedBatch) {
  PagedSequences sequences(GetParam(), {70, 1, 300, 33, 130, 20}, 1);
  const Call call = {{0, 70, 70}, {1, 1, 1}, {2, 1, 290}, {0, 1, 0}, {3, 5, 33}, {4, 40, 130}, {5, 1, 20}};
  sequences.expect_right(call, sequences.run(call), 6);
}

INSTANTIATE_TEST_SUITE_P(All, AttentionShapes,
                         testing::Values(AttentionShape{8, 2, 8, 0}, AttentionShape{8, 2, 16, 0},
                                         AttentionShape{6, 2, 32, 0}, AttentionShape{9, 3, 64, 0},
                                         AttentionShape{5, 5, 80, 0}, AttentionShape{7, 1, 96, 0},
                                         AttentionShape{4, 1, 128, 0}, AttentionShape{2, 1, 256, 0},
                                         AttentionShape{8, 1, 64, 0}, AttentionShape{6, 1, 32, 50},
                                         AttentionShape{40, 1, 16, 0}, AttentionShape{70, 1, 8, 90},
                                         AttentionShape{2, 2, 128, 0}, AttentionShape{10, 2, 128, 0},
                                         AttentionShape{16, 2, 128, 0}, AttentionShape{5, 1, 64, 0},
                                         AttentionShape{10, 2, 128, 60}),
                         name_of_shape);

// The real shape: decode rows, and a prompt's second part.
TEST(Attention, Mistral7B) {
  PagedSequences sequences({32, 8, 128, 0}, {600, 40, 257, 90}, 2);
  const Call decode = {{0, 1, 600}, {1, 1, 40}, {2, 1, 257}, {3, 1, 64}};
  sequences.expect_right(decode, sequences.run(decode));
  const Call prefill = {{3, 50, 90}};
  sequences.expect_right(prefill, sequences.run(prefill), 4);
}

// A long text: 17 chunks, each of a block of its own.
TEST(Attention, Mistral7BAtFourThousandKeys) {
  PagedSequences sequences({32, 8, 128, 0}, {4200}, 7);
  const Call call = {{0, 1, 4200}};
  sequences.expect_right(call, sequences.run(call));
}

// One row, and a whole prompt, that end just before, at and after the ends of pages, tiles and chunks.
TEST(Attention, LengthsAroundBorders) {
  for (const AttentionShape& shape : {AttentionShape{4, 2, 64, 0}, AttentionShape{1, 1, 256, 0}}) {
    PagedSequences sequences(shape, {600}, 3);
    Call decode, prefill;
    for (const int32_t length : {1, 15, 16, 17, 63, 64, 65, 255, 256, 257, 511, 512, 513})
      decode.push_back({0, 1, length});
    for (const int32_t length : {15, 17, 64, 65, 257}) prefill.push_back({0, length, length});
    sequences.expect_right(decode, sequences.run(decode));
    sequences.expect_right(prefill, sequences.run(prefill), 5);
  }
}

// The last key that a row sees outweighs all others, then the first one: a key too many or too few shows.
TEST(Attention, SeesExactlyItsKeys) {
  for (const int32_t window : {0, 1, 16, 100, 256, 300}) {
    for (const float slope : {2.0f, -2.0f}) {
      SCOPED_TRACE(testing::Message() << "window " << window << ", slope " << slope);
      PagedSequences sequences({2, 2, 16, window}, {330}, 4);
      sequences.set_ramp(slope);
      const Call call = {{0, 1, 1},   {0, 1, 17},  {0, 1, 64},   {0, 1, 129}, {0, 1, 255},
                         {0, 1, 256}, {0, 1, 257}, {0, 20, 270}, {0, 1, 330}, {0, 330, 330}};
      sequences.expect_right(call, sequences.run(call), 40);
    }
  }
}

class AttentionBits : public testing::TestWithParam<AttentionShape> {};

// However a batch is cut into calls, a row has the same bits: in a prompt, alone, beside others.
TEST_P(AttentionBits, SameHoweverCut) {
  PagedSequences sequences(GetParam(), {310, 17, 90}, 5);
  const Values reference = sequences.run_all(sequences.in_steps_of(1000));
  expect_same_bits(sequences.run_all(sequences.in_steps_of(77)), reference, "steps of 77");
  Call together;
  std::vector<Call> alone;
  for (const int32_t kv_len : {1, 2, 64, 65, 255, 256, 257, 300, 310}) {
    alone.push_back({{0, 1, kv_len}});
    together.push_back(alone.back()[0]);
  }
  const Values apart = sequences.run_all(alone);
  Values expected = apart;  // of the rows that were computed, the prompt's
  for (size_t i = 0; i < apart.size(); ++i)
    if (!std::isnan(apart[i])) expected[i] = reference[i];
  expect_same_bits(apart, expected, "rows alone");
  expect_same_bits(sequences.run_all({together}), expected, "rows beside others");
}

// Under every plan: one kernel or the other, one block or many, with room for partial results or without.
TEST_P(AttentionBits, SameUnderEveryPlan) {
  PagedSequences sequences(GetParam(), {1100, 17, 600}, 6);
  const Call call = {{0, 10, 1100}, {1, 3, 17}, {2, 1, 600}, {0, 1, 0}, {0, 4, 770}};
  const Values reference = sequences.run(call);
  sequences.expect_right(call, reference, 2);
  expect_same_bits(sequences.run(call, prefilled()), reference, "prefilled");
  for (const auto& [splits, partials] : {std::pair{1, 0}, {2, 1000}, {40, 1000}, {40, 8}, {3, 14}}) {
    SCOPED_TRACE(std::to_string(splits) + " splits, room for " + std::to_string(partials));
    expect_same_bits(sequences.run(call, decoded(splits, partials)), reference, "decoded");
  }
}

INSTANTIATE_TEST_SUITE_P(All, AttentionBits,
                         testing::Values(AttentionShape{4, 1, 128, 0}, AttentionShape{3, 1, 64, 270},
                                         AttentionShape{1, 1, 256, 0}, AttentionShape{2, 1, 80, 0},
                                         AttentionShape{5, 1, 128, 0}, AttentionShape{8, 1, 128, 0},
                                         AttentionShape{1, 1, 128, 0}),
                         name_of_shape);

// Captured once and replayed as sequences grow and finish, with a grid for the longest.
TEST(Attention, ReplaysFromAGraph) {
  const AttentionShape shape{4, 1, 64, 0};
  PagedSequences sequences(shape, {700, 300, 20}, 8);
  const std::vector<Call> steps = {{{0, 1, 257}, {1, 1, 255}, {2, 1, 16}},
                                   {{0, 1, 700}, {1, 1, 256}, {2, 1, 0}},
                                   {{2, 1, 17}, {0, 1, 0}, {1, 1, 300}}};
  // The longest step's scalars; its arrays are written over.
  const DeviceBatch batch = sequences.batch_of(steps[1]);
  const DeviceTensor qkv(DType::f32, 3, shape.qkv_cols()), out(DType::bf16, 3, shape.q_cols());
  std::byte* workspace = sequences.workspace(batch.view());
  const KvLayer cache = sequences.cache();
  cudaStream_t stream = nullptr;
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  ASSERT_EQ(cudaStreamCreate(&stream), cudaSuccess);
  ASSERT_EQ(cudaStreamBeginCapture(stream, cudaStreamCaptureModeThreadLocal), cudaSuccess);
  launch_attention(stream, qkv.view(), batch.view(), shape, cache, out.view(), workspace);
  ASSERT_EQ(cudaStreamEndCapture(stream, &graph), cudaSuccess);
  ASSERT_EQ(cudaGraphInstantiate(&replay, graph, 0), cudaSuccess);
  const auto overwrite = [](TensorView to, TensorView from) {
    const size_t bytes = static_cast<size_t>(from.rows * from.cols) * size_of(from.dtype);
    ASSERT_EQ(cudaMemcpy(to.data, from.data, bytes, cudaMemcpyDeviceToDevice), cudaSuccess);
  };
  for (const Call& step : steps) {
    const DeviceBatch now = sequences.batch_of(step);
    const DeviceTensor rows(DType::f32, 3, shape.qkv_cols(), sequences.rows_of(step));
    overwrite(batch.view().kv_lens, now.view().kv_lens);
    overwrite(batch.view().block_table, now.view().block_table);
    overwrite(qkv.view(), rows.view());
    ASSERT_EQ(cudaGraphLaunch(replay, stream), cudaSuccess);
    expect_same_bits(out.download(), sequences.run(step), "replayed");
  }
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  cudaStreamDestroy(stream);
}

// A server reserves scratch once, for its largest step: every smaller one must do with it.
TEST(Attention, WorkspaceGrowsWithTheBatch) {
  for (const AttentionShape& shape :
       {AttentionShape{32, 8, 128, 0}, AttentionShape{32, 8, 128, 4096}, AttentionShape{40, 1, 64, 0}}) {
    for (const int32_t max_kv : {1, 256, 257, 5000, 40000}) {
      size_t before = 0;
      for (const int32_t n_seqs : {1, 2, 4, 5, 8, 64, 300}) {
        const size_t bytes = attention_workspace_bytes(shape, n_seqs, n_seqs, max_kv);
        EXPECT_GE(bytes, before) << n_seqs << " sequences";
        EXPECT_GE(attention_workspace_bytes(shape, n_seqs, n_seqs, max_kv + 1), bytes)
            << n_seqs << " sequences";
        EXPECT_EQ(attention_workspace_bytes(shape, 5000, n_seqs, max_kv), bytes) << "more tokens";
        before = bytes;
      }
    }
  }
}

// Single rows share their keys' chunks out, also beside a long prompt; long prompts do not.
TEST(Attention, Plans) {
  const AttentionShape mistral{32, 8, 128, 0};
  const auto plan = [&](int32_t n_tokens, int32_t n_seqs, int32_t max_q, int32_t max_kv) {
    BatchView batch;
    batch.n_tokens = n_tokens;
    batch.n_seqs = n_seqs;
    batch.max_q = max_q;
    batch.max_kv = max_kv;
    return plan_attention(mistral, batch);
  };
  const AttentionPlan alone = plan(1, 1, 1, 4096), many = plan(64, 64, 1, 4096);
  EXPECT_EQ(std::tuple(alone.decode_tiles, alone.splits, alone.prefill_tiles), std::tuple(1, 16, 0));
  EXPECT_EQ(std::tuple(many.decode_tiles, many.splits, many.prefill_tiles), std::tuple(1, 4, 0));
  EXPECT_GE(many.max_partials, 64 * 16) << "room for every chunk";
  const AttentionPlan prompt = plan(2048, 1, 2048, 2048), mixed = plan(2048 + 31, 32, 2048, 4096);
  EXPECT_EQ(std::tuple(prompt.decode_tiles, prompt.prefill_tiles), std::tuple(0, 65));
  EXPECT_EQ(std::tuple(mixed.decode_tiles, mixed.splits), std::tuple(1, 8));
  EXPECT_GE(mixed.prefill_tiles, 64);
  const AttentionPlan tail = plan(20, 1, 20, 32768);
  EXPECT_EQ(std::tuple(tail.decode_tiles, tail.splits, tail.prefill_tiles), std::tuple(5, 51, 0));
}

TEST(Attention, StridedRows) {
  PagedSequences sequences({3, 1, 64, 0}, {50}, 7);
  const Call call = {{0, 1, 50}, {0, 40, 40}};
  expect_same_bits(sequences.run(call, {}, 2), sequences.run(call), "rows 2 elements apart");
  EXPECT_THROW(sequences.run(call, {}, 1), std::runtime_error) << "rows 1 element apart";
}

TEST(Attention, RefusesByName) {
  const auto message = [](const AttentionShape& shape) -> std::string {
    try {
      attention_workspace_bytes(shape, 1, 1, 1);
    } catch (const std::runtime_error& error) {
      return error.what();
    }
    return "";
  };
  EXPECT_EQ(message({4, 2, 72, 0}),
            "attention: head_dim is 72; CUDA kernels are built for 8, 16, 32, 64, 80, 96, 128, 256");
  EXPECT_EQ(message({4, 3, 64, 0}), "attention: 4 heads cannot share 3 kv heads");
}

}  // namespace
}  // namespace tramontane::cuda
