// Kernels as programs have them, against references written from the mathematics.
#include <algorithm>
#include <cmath>
#include <map>

#include "tests/cuda_emulator/kernels/kernels.h"
#include "tests/cuda_emulator/test_support.h"

namespace tramontane::emulator {
namespace {

using namespace emulator_kernels;

TEST(Kernels, Saxpy) {
  constexpr int kCount = 10'003;
  const auto x = random_floats(kCount, 1), y = random_floats(kCount, 2);
  DeviceArray<float> dx(x), dy(y);
  saxpy(kCount, 2.5f, dx.get(), dy.get());
  const auto result = dy.values();
  for (int i = 0; i < kCount; ++i) ASSERT_EQ(result[i], std::fmaf(2.5f, x[i], y[i])) << i;
}

TEST(Kernels, SumOverBlocksByShuffleBarrierAndAtomic) {
  const auto x = random_floats(50'000, 3);
  double expected = 0;
  for (const float v : x) expected += v;
  DeviceArray<float> dx(x), sum(std::vector<float>{0});
  block_sum(dx.get(), sum.get(), static_cast<int>(x.size()));
  EXPECT_NEAR(sum.values()[0], expected, 1e-2);
}

TEST(Kernels, LoopsOfDifferentLengthInOneWarp) {
  constexpr int kCount = 1000;
  DeviceArray<int> steps(std::vector<int>(kCount, -1));
  collatz_steps(steps.get(), kCount);
  const auto result = steps.values();
  for (int i = 0; i < kCount; ++i) {
    int count = 0;
    for (unsigned v = static_cast<unsigned>(i) + 1; v != 1; v = v % 2 ? 3 * v + 1 : v / 2) ++count;
    ASSERT_EQ(result[i], count) << i;
  }
}

TEST(Kernels, Softmax) {
  constexpr int kRows = 3, kCount = 517;
  const auto x = random_floats(kRows * kCount, 4, 8.0f);
  DeviceArray<float> dx(x), dy(x.size());
  softmax_rows(dx.get(), dy.get(), kRows, kCount);
  const auto y = dy.values();
  for (int r = 0; r < kRows; ++r) {
    double sum = 0;
    for (int i = 0; i < kCount; ++i) sum += std::exp(static_cast<double>(x[r * kCount + i]));
    for (int i = 0; i < kCount; ++i)
      ASSERT_NEAR(y[r * kCount + i], std::exp(static_cast<double>(x[r * kCount + i])) / sum, 1e-6);
  }
}

TEST(Kernels, AtomicsInSharedAndGlobalMemory) {
  std::vector<uint8_t> x(20'000);
  std::mt19937 random(5);
  std::vector<unsigned> expected(256);
  for (auto& v : x) ++expected[v = static_cast<uint8_t>(random() % 256)];
  DeviceArray<uint8_t> dx(x);
  DeviceArray<unsigned> counts(std::vector<unsigned>(256, 0));
  histogram(dx.get(), counts.get(), static_cast<int>(x.size()));
  EXPECT_EQ(counts.values(), expected);

  std::vector<int> numbers(1000);
  for (auto& v : numbers) v = static_cast<int>(random());
  DeviceArray<int> dn(numbers), most(std::vector<int>{INT32_MIN});
  max_of(dn.get(), most.get(), 1000);
  EXPECT_EQ(most.values()[0], *std::max_element(numbers.begin(), numbers.end()));
}

TEST(Kernels, ConstantsAndDeviceVariables) {
  const auto x = random_floats(64, 6);
  DeviceArray<float> dx(x), dy(64);
  set_scale(4.0f);
  scale_by_constant(dx.get(), dy.get(), 64);
  const auto y = dy.values();
  for (int i = 0; i < 64; ++i) ASSERT_EQ(y[i], std::fmaf(x[i], i % 2 ? 0.5f : 4.0f, 3.0f));
}

TEST(Kernels, SwitchTakesEveryBranch) {
  std::vector<int> which(64);
  std::vector<float> x(64), expected(64);
  for (int i = 0; i < 64; ++i) {
    which[i] = i * 5 % 9;
    const float v = x[i] = static_cast<float>(i) + 0.75f;
    const float results[] = {v + 1, v * 3, std::sqrt(v), -v, v * v, 1 / v, std::floor(v / 2), 100, 100};
    expected[i] = results[which[i]];
  }
  DeviceArray<int> dw(which);
  DeviceArray<float> dx(x);
  choose(dw.get(), dx.get(), 64);
  EXPECT_EQ(dx.values(), expected);
}

TEST(Kernels, CallsOfDeviceFunctions) {
  std::vector<float> x(64), expected(64);
  const auto powers = [](float v, int n) {
    float s = 0, p = 1;
    for (int i = 0; i < n; ++i) s += p, p *= v;
    return s;
  };
  for (int i = 0; i < 64; ++i) {
    x[i] = static_cast<float>(i - 32) / 8;
    expected[i] = (x[i] < 0 ? -x[i] : powers(x[i], 3) + 1) + powers(x[i], i & 3);
  }
  DeviceArray<float> dx(x), dy(64);
  call_functions(dx.get(), dy.get(), 64);
  EXPECT_EQ(dy.values(), expected);
}

TEST(Kernels, ParameterStructIndexedAtRunTime) {
  std::vector<int> index(32), expected(32);
  for (int i = 0; i < 32; ++i) index[i] = i * 7 % 16, expected[i] = index[i] * index[i];
  DeviceArray<int> di(index), out(32);
  struct_parameter(di.get(), out.get(), 32);
  EXPECT_EQ(out.values(), expected);
}

TEST(Kernels, TransposeThroughSharedMemory) {
  constexpr int kSize = 96;
  const auto x = random_floats(kSize * kSize, 7);
  DeviceArray<float> dx(x), dy(x.size());
  transpose(dx.get(), dy.get(), kSize);
  const auto y = dy.values();
  for (int r = 0; r < kSize; ++r)
    for (int c = 0; c < kSize; ++c) ASSERT_EQ(y[c * kSize + r], x[r * kSize + c]);
}

TEST(Kernels, WarpQueries) {
  std::vector<int> x(32);
  for (int i = 0; i < 32; ++i) x[i] = i * 7 % 31;
  DeviceArray<int> dx(x);
  DeviceArray<unsigned> out(32 * 8);
  warp_queries(dx.get(), out.get());
  const auto y = out.values();
  unsigned odd = 0, sum = 0, most = 0;
  std::map<int, unsigned> same;
  for (int i = 0; i < 32; ++i) {
    odd |= static_cast<unsigned>(x[i] & 1) << i;
    sum += static_cast<unsigned>(x[i]);
    most = std::max(most, static_cast<unsigned>(x[i]));
    same[x[i] % 3] |= 1u << i;
  }
  for (int i = 0; i < 32; ++i) {
    const unsigned* mine = &y[i * 8];
    EXPECT_EQ(mine[0], odd);
    EXPECT_EQ(mine[1], 3u);
    EXPECT_EQ(mine[2], same[x[i] % 3]);
    EXPECT_EQ(mine[3], sum);
    EXPECT_EQ(mine[4], most);
    EXPECT_EQ(mine[5], static_cast<unsigned>(x[i % 16 < 3 ? i : i - 3]));
    EXPECT_EQ(mine[6], static_cast<unsigned>(x[i / 8 * 8 + (i + 5) % 8]));
    EXPECT_EQ(mine[7], x[i] & 1 ? odd : 0);
  }
}

TEST(Kernels, BarriersThatReduce) {
  constexpr int kThreads = 96;
  std::vector<int> x(kThreads);
  int positive = 0;
  for (int i = 0; i < kThreads; ++i) positive += (x[i] = i % 5 - 2) > 0;
  DeviceArray<int> dx(x), out(kThreads);
  barrier_reductions(dx.get(), out.get(), kThreads);
  EXPECT_EQ(out.values(), std::vector<int>(kThreads, positive * 4 + 2));
}

TEST(Kernels, CarryChains) {
  std::vector<uint64_t> a(128), b(128), expected(128);
  std::mt19937_64 random(8);
  for (int i = 0; i < 64; ++i) {
    for (int k = 0; k < 2; ++k)
      a[2 * i + k] = random(), b[2 * i + k] = i % 3 ? random() : ~a[2 * i + k] + 1 - static_cast<uint64_t>(k);
    expected[2 * i] = a[2 * i] + b[2 * i];
    expected[2 * i + 1] = a[2 * i + 1] + b[2 * i + 1] + (expected[2 * i] < a[2 * i]);
  }
  DeviceArray<uint64_t> da(a), db(b), sum(128);
  wide_sum(da.get(), db.get(), sum.get(), 64);
  EXPECT_EQ(sum.values(), expected);
}

TEST(Kernels, LastBlockMerges) {
  constexpr int kBlocks = 37;
  std::vector<float> x(kBlocks);
  float expected = 0;
  for (int i = 0; i < kBlocks; ++i) expected += 2 * (x[i] = static_cast<float>(i));
  DeviceArray<float> dx(x), partial(kBlocks), sum(1);
  DeviceArray<unsigned> counter(std::vector<unsigned>{0});
  for (int round = 0; round < 3; ++round)
    last_block_sum(dx.get(), partial.get(), counter.get(), sum.get(), kBlocks);
  EXPECT_EQ(sum.values()[0], expected);
  EXPECT_EQ(counter.values()[0], 0u);
}

TEST(Kernels, ProducerAndConsumerWarps) {
  constexpr int kRounds = 5;
  std::vector<int> x(32 * kRounds), expected(32 * kRounds);
  for (int i = 0; i < 32 * kRounds; ++i) expected[i] = 10 * (x[i] = i);
  DeviceArray<int> dx(x), dy(x.size());
  producer_consumer(dx.get(), dy.get(), kRounds);
  EXPECT_EQ(dy.values(), expected);
}

TEST(Kernels, WarpWaitsForAnotherInALoop) {
  DeviceArray<int> out(std::vector<int>{0, 0});
  spin_between_warps(out.get());
  EXPECT_EQ(out.values(), (std::vector<int>{1, 7}));
}

TEST(Kernels, EveryInstructionOfTheTestKernelsIsKnown) {
  if (!is_emulated()) GTEST_SKIP() << "needs the PTX emulator";
  const std::string all = kernels();
  EXPECT_GT(std::count(all.begin(), all.end(), '\n'), 15);
  const std::string list = unsupported();  // but for the one that is there to be unknown
  EXPECT_EQ(std::count(list.begin(), list.end(), '\n'), 1) << list;
  EXPECT_NE(list.find("unknown_instruction_kernel"), list.npos);
}

}  // namespace
}  // namespace tramontane::emulator
