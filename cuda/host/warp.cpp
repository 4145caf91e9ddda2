// See warp.h. Each operation is an exchange (machine.h) over what the lanes brought, which lies on their stacks.
#include "cuda/host/warp.h"

#include <array>
#include <string>

#include "base/half.h"

namespace premotor::cuda::host {
namespace {

constexpr std::uint32_t kFull = 0xffffffffu;
constexpr int kLanes = 32;

struct Shuffled {
  std::uint32_t value, from, result;
  bool is_given;
};

void exchange_values(void* const* lanes, std::uint32_t) {
  for (int lane = 0; lane < kLanes; ++lane) {
    if (lanes[lane] == nullptr) continue;
    auto& own = *static_cast<Shuffled*>(lanes[lane]);
    const auto* source = own.from < kLanes ? static_cast<const Shuffled*>(lanes[own.from]) : nullptr;
    own.is_given = source != nullptr;
    if (source != nullptr) own.result = source->value;
  }
}

struct Vote {
  bool is_yes;
  std::uint32_t result;
};

void exchange_votes(void* const* lanes, std::uint32_t) {
  std::uint32_t all = 0;
  for (int lane = 0; lane < kLanes; ++lane)
    if (lanes[lane] != nullptr && static_cast<const Vote*>(lanes[lane])->is_yes) all |= 1u << lane;
  for (int lane = 0; lane < kLanes; ++lane)
    if (lanes[lane] != nullptr) static_cast<Vote*>(lanes[lane])->result = all;
}

struct Row {
  std::array<std::uint16_t, 8> values;
  std::uint32_t at;
  std::uint32_t* r;
};

// Lane l holds of each matrix row l / 4, columns 2 (l % 4) and the next; transposed: column l / 4 and these rows.
template <bool is_transposed>
void exchange_rows(void* const* lanes, std::uint32_t) {
  ++counters().matrix_loads;
  for (int matrix = 0; matrix < 4; ++matrix) {
    const auto row = [&](int i) -> const Row& { return *static_cast<const Row*>(lanes[matrix * 8 + i]); };
    unsigned banks = 0;
    for (int i = 0; i < 8; ++i) {
      const unsigned bank = 1u << (row(i).at / 16 % 8);
      if ((banks & bank) != 0) ++counters().bank_conflicts;
      banks |= bank;
    }
    for (int lane = 0; lane < kLanes; ++lane) {
      const int along = lane / 4, pair = lane % 4 * 2;
      const std::uint16_t low = is_transposed ? row(pair).values[along] : row(along).values[pair];
      const std::uint16_t high = is_transposed ? row(pair + 1).values[along] : row(along).values[pair + 1];
      static_cast<const Row*>(lanes[lane])->r[matrix] = low | static_cast<std::uint32_t>(high) << 16;
    }
  }
}

struct Fragments {
  const std::uint32_t* a;
  const std::uint32_t* b;
  void* d;
};

float from_bf16(std::uint16_t bits) { return bf16_to_f32(bits); }
float from_f16(std::uint16_t bits) { return f16_to_f32(bits); }

// With g = lane / 4 and t = lane % 4: a[0] and a[1] are rows g and g + 8 at k = 2t, 2t + 1, a[2] and a[3] the same at
// k + 8; b[0] and b[1] column g at k = 2t, 2t + 1 and k + 8; d[0], d[1] row g at columns 2t, 2t + 1, d[2], d[3] row g
// + 8.
template <float (*widen)(std::uint16_t)>
void multiply_halves(void* const* lanes, std::uint32_t) {
  ++counters().matrix_products;
  float a[16][16], b[16][8], d[16][8] = {};
  const auto at = [&](int lane) -> const Fragments& { return *static_cast<const Fragments*>(lanes[lane]); };
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int i = 0; i < 4; ++i)
      for (int half = 0; half < 2; ++half)
        a[g + i % 2 * 8][2 * t + half + i / 2 * 8] = widen(static_cast<std::uint16_t>(at(lane).a[i] >> 16 * half));
    for (int i = 0; i < 2; ++i)
      for (int half = 0; half < 2; ++half)
        b[2 * t + half + i * 8][g] = widen(static_cast<std::uint16_t>(at(lane).b[i] >> 16 * half));
  }
  for (int row = 0; row < 16; ++row)
    for (int k = 0; k < 16; ++k)
      for (int column = 0; column < 8; ++column) d[row][column] += a[row][k] * b[k][column];
  for (int lane = 0; lane < kLanes; ++lane) {
    auto* to = static_cast<float*>(at(lane).d);
    for (int i = 0; i < 4; ++i) to[i] += d[lane / 4 + i / 2 * 8][lane % 4 * 2 + i % 2];
  }
}

// The same with four bytes where there are two halves: k = 4t .. 4t + 3, and k + 16.
void multiply_bytes(void* const* lanes, std::uint32_t) {
  ++counters().matrix_products;
  std::int32_t a[16][32], b[32][8];
  const auto at = [&](int lane) -> const Fragments& { return *static_cast<const Fragments*>(lanes[lane]); };
  for (int lane = 0; lane < kLanes; ++lane) {
    const int g = lane / 4, t = lane % 4;
    for (int byte = 0; byte < 4; ++byte) {
      for (int i = 0; i < 4; ++i)
        a[g + i % 2 * 8][4 * t + byte + i / 2 * 16] = static_cast<std::int8_t>(at(lane).a[i] >> 8 * byte);
      for (int i = 0; i < 2; ++i) b[4 * t + byte + i * 16][g] = static_cast<std::int8_t>(at(lane).b[i] >> 8 * byte);
    }
  }
  for (int lane = 0; lane < kLanes; ++lane) {
    auto* to = static_cast<std::int32_t*>(at(lane).d);
    for (int i = 0; i < 4; ++i) {
      const int row = lane / 4 + i / 2 * 8, column = lane % 4 * 2 + i % 2;
      for (int k = 0; k < 32; ++k) to[i] += a[row][k] * b[k][column];
    }
  }
}

}  // namespace

std::uint32_t shuffle(const char* what, std::uint32_t mask, std::uint32_t value, std::uint32_t from, const Site& at) {
  Shuffled own{value, from, 0, false};
  meet_warp(what, mask, exchange_values, &own, at);
  if (!own.is_given)
    raise(FaultKind::wrong_mask,
          std::string(what) + " takes a value of lane " + std::to_string(from) + ", which is not in the mask", at);
  return own.result;
}

std::uint32_t ballot(std::uint32_t mask, bool vote, const Site& at) {
  Vote own{vote, 0};
  meet_warp("a vote", mask, exchange_votes, &own, at);
  return own.result;
}

void load_matrices(std::uint32_t* r, const SharedArray& array, std::uint32_t at, bool is_transposed, const Site& site) {
  Row row{{}, at, r};
  check_row(array, at, site);
  read_shared(array, at, sizeof row.values, row.values.data(), site);
  meet_warp("ldmatrix", kFull, is_transposed ? exchange_rows<true> : exchange_rows<false>, &row, site);
}

void multiply_bf16(float* d, const std::uint32_t* a, const std::uint32_t* b, const Site& at) {
  Fragments own{a, b, d};
  meet_warp("mma.sync", kFull, multiply_halves<from_bf16>, &own, at);
}

void multiply_f16(float* d, const std::uint32_t* a, const std::uint32_t* b, const Site& at) {
  Fragments own{a, b, d};
  meet_warp("mma.sync", kFull, multiply_halves<from_f16>, &own, at);
}

void multiply_s8(std::int32_t* d, const std::uint32_t* a, const std::uint32_t* b, const Site& at) {
  Fragments own{a, b, d};
  meet_warp("mma.sync", kFull, multiply_bytes, &own, at);
}

}  // namespace premotor::cuda::host
