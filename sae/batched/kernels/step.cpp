// The hot parts of a training step on a CPU, over raw pointers; called by cpp_kernels.py.
//
// Shapes: B = tokens in the batch, F = latents, D = d_in, L = levels, N = entries of a code.
// A code is sparse: token b holds the entries begin[b] .. end[b] of (latent, value), latents
// rising. Every sum is taken in an order that depends on neither threads nor neighbours, so equal
// inputs give equal bits: threads only ever share out rows.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <limits>
#include <vector>

#if defined(__SSE2__)
#include <immintrin.h>
#endif

namespace {

using i32 = int32_t;
using i64 = int64_t;

constexpr i64 kLanes = 16;
constexpr i64 kMaxLevels = 64;

// Moments of latents that stopped firing decay into subnormals, which cost many times a normal
// number and move no weight: 1e-38 over eps.
struct FlushSubnormals {
#if defined(__SSE2__)
    unsigned before = _mm_getcsr();
    FlushSubnormals() { _mm_setcsr(before | 0x8040u); }
    ~FlushSubnormals() { _mm_setcsr(before); }
#endif
};

template <class T>
T lowest() {
    return -std::numeric_limits<T>::infinity();
}

// Indices j with !(key[j] < least), NaN included; returns how many.
template <class T>
i64 collect(const T* key, i64 n, T least, i32* out) {
    i64 count = 0;
    i64 j = 0;
#if defined(__AVX512F__)
    if constexpr (sizeof(T) == 4) {
        const __m512 bound = _mm512_set1_ps(static_cast<float>(least));
        for (; j + 16 <= n; j += 16) {
            const __m512 here = _mm512_loadu_ps(reinterpret_cast<const float*>(key + j));
            unsigned mask = _mm512_cmp_ps_mask(here, bound, _CMP_NLT_UQ);
            for (; mask; mask &= mask - 1) out[count++] = static_cast<i32>(j + __builtin_ctz(mask));
        }
    }
#elif defined(__AVX2__)
    if constexpr (sizeof(T) == 4) {
        const __m256 bound = _mm256_set1_ps(static_cast<float>(least));
        for (; j + 8 <= n; j += 8) {
            const __m256 here = _mm256_loadu_ps(reinterpret_cast<const float*>(key + j));
            unsigned mask = _mm256_movemask_ps(_mm256_cmp_ps(here, bound, _CMP_NLT_UQ));
            for (; mask; mask &= mask - 1) out[count++] = static_cast<i32>(j + __builtin_ctz(mask));
        }
    }
#endif
    for (; j < n; ++j) {
        out[count] = static_cast<i32>(j);
        count += !(key[j] < least);
    }
    return count;
}

// key = (pre + bias) * norm, and the maxima of disjoint sets of `group` keys each.
template <class T>
i64 keys_and_maxima(const T* pre, const T* bias, const T* norm, i64 F, i64 group, T* key,
                    T* maxima) {
    i64 num = 0;
    i64 f = 0;
    const i64 block = group * kLanes;
    for (; f + block <= F; f += block) {
        T lane[kLanes];
        for (i64 l = 0; l < kLanes; ++l) lane[l] = lowest<T>();
        for (i64 g = 0; g < group; ++g) {
            const i64 at = f + g * kLanes;
            for (i64 l = 0; l < kLanes; ++l) {
                T value = bias ? pre[at + l] + bias[at + l] : pre[at + l];
                if (norm) value *= norm[at + l];
                key[at + l] = value;
                lane[l] = value > lane[l] ? value : lane[l];
            }
        }
        for (i64 l = 0; l < kLanes; ++l) maxima[num++] = lane[l];
    }
    for (; f < F; ++f) {
        T value = bias ? pre[f] + bias[f] : pre[f];
        if (norm) value *= norm[f];
        key[f] = value;
        maxima[num++] = value == value ? value : lowest<T>();
    }
    return num;
}

template <class T>
struct RowScratch {
    std::vector<T> key, maxima, ranked;
    std::vector<i32> found;
    explicit RowScratch(i64 F) : key(F), maxima(F + kLanes), ranked(F), found(F + kLanes) {}
};

// The k-th largest of n numbers; NaN counts as the largest.
template <class T>
T kth_largest(T* values, i64 n, i64 k) {
    for (i64 i = 0; i < n; ++i)
        if (values[i] != values[i]) values[i] = std::numeric_limits<T>::infinity();
    std::nth_element(values, values + (k - 1), values + n, std::greater<T>());
    return values[k - 1];
}

// The k largest keys of one token; entries whose value is not above zero are left out unless
// `signed_values`. Ties at the k-th go to the lower latents.
template <class T>
i64 select_row(const T* pre, const T* bias, const T* norm, i64 F, i64 k, bool signed_values,
               RowScratch<T>& scratch, i32* index, T* value) {
    i64 group = 32;
    while (group > 1 && F / group < 8 * k) group /= 2;
    T* key = scratch.key.data();
    const i64 num_maxima =
        keys_and_maxima(pre, bias, norm, F, group, key, scratch.maxima.data());
    T least = lowest<T>();
    if (num_maxima > k) {
        std::nth_element(scratch.maxima.begin(), scratch.maxima.begin() + (k - 1),
                         scratch.maxima.begin() + num_maxima, std::greater<T>());
        least = scratch.maxima[k - 1];
    }
    const i64 num_found = collect(key, F, least, scratch.found.data());
    for (i64 i = 0; i < num_found; ++i) scratch.ranked[i] = key[scratch.found[i]];
    const T last = num_found > k ? kth_largest(scratch.ranked.data(), num_found, k) : least;
    i64 ties = k;
    for (i64 i = 0; i < num_found; ++i) ties -= !(key[scratch.found[i]] <= last);
    i64 count = 0;
    for (i64 i = 0; i < num_found && count < k; ++i) {
        const i32 f = scratch.found[i];
        if (key[f] <= last) {
            if (key[f] < last || ties <= 0) continue;
            --ties;
        }
        const T chosen = bias ? pre[f] + bias[f] : pre[f];
        if (!signed_values && chosen <= 0) continue;
        index[count] = f;
        value[count++] = chosen;
    }
    return count;
}

template <class T>
void select_tokens(const T* pre, const T* bias, const T* norm, i64 B, i64 F, i64 k,
                   i64 signed_values, i32* begin, i32* end, i32* index, T* value, i64 threads) {
#pragma omp parallel num_threads(threads)
    {
        RowScratch<T> scratch(F);
#pragma omp for schedule(static)
        for (i64 b = 0; b < B; ++b) {
            begin[b] = static_cast<i32>(b * k);
            end[b] = static_cast<i32>(b * k + select_row(pre + b * F, bias, norm, F, k,
                                                         signed_values != 0, scratch,
                                                         index + b * k, value + b * k));
        }
    }
}

// A bound that about `wanted` of B * F keys exceed, from a sample of the tokens; at least zero.
template <class T>
T guess_bound(const T* pre, const T* bias, const T* norm, i64 B, i64 F, i64 wanted) {
    const i64 stride = std::max<i64>(1, B / 32);
    std::vector<T> sample;
    i64 rows = 0;
    for (i64 b = 0; b < B; b += stride, ++rows)
        for (i64 f = 0; f < F; ++f) {
            T key = bias ? pre[b * F + f] + bias[f] : pre[b * F + f];
            if (norm) key *= norm[f];
            if (key > 0) sample.push_back(key);
        }
    const i64 rank = wanted * rows / B + wanted * rows / (4 * B) + 16;
    if (rank >= static_cast<i64>(sample.size())) return 0;
    return kth_largest(sample.data(), static_cast<i64>(sample.size()), rank);
}

// Entries of one token with positive keys not below `least`; returns how many.
template <class T>
i64 positive_row(const T* pre, const T* bias, const T* norm, i64 F, T least, RowScratch<T>& scratch) {
    T* key = scratch.key.data();
    for (i64 f = 0; f < F; ++f) {
        T value = bias ? pre[f] + bias[f] : pre[f];
        key[f] = norm ? value * norm[f] : value;
    }
    const i64 num_found = collect(key, F, least, scratch.found.data());
    i64 count = 0;
    for (i64 i = 0; i < num_found; ++i) {
        const i32 f = scratch.found[i];
        scratch.found[count] = f;
        count += !(key[f] <= 0);
    }
    return count;
}

// The `wanted` largest positive keys of the whole batch, packed by token. `index`, `value` and
// `key_out` hold `wanted` entries; returns how many there are. Ties at the end go to earlier
// tokens, then lower latents.
template <class T>
i64 select_batch(const T* pre, const T* bias, const T* norm, i64 B, i64 F, i64 wanted, i32* begin,
                 i32* end, i32* index, T* value, T* key_out, i64 threads) {
    std::vector<std::vector<i32>> found(B);
    std::vector<std::vector<T>> keys(B);
    T least = wanted > 0 ? guess_bound(pre, bias, norm, B, F, wanted) : 0;
    i64 total = 0;
    for (;;) {
        total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
        {
            RowScratch<T> scratch(F);
#pragma omp for schedule(static)
            for (i64 b = 0; b < B; ++b) {
                const i64 count = positive_row(pre + b * F, bias, norm, F, least, scratch);
                found[b].assign(scratch.found.begin(), scratch.found.begin() + count);
                keys[b].resize(count);
                for (i64 i = 0; i < count; ++i) keys[b][i] = scratch.key[found[b][i]];
                total += count;
            }
        }
        if (total >= wanted || least <= 0) break;
        least = least > std::numeric_limits<T>::min() * 1024 ? least / 2 : 0;
    }
    T last = 0;
    i64 ties = 0;
    if (total > wanted && wanted > 0) {
        std::vector<T> all;
        all.reserve(total);
        for (const auto& row : keys) all.insert(all.end(), row.begin(), row.end());
        last = kth_largest(all.data(), total, wanted);
        ties = wanted;
        for (const T key : all) ties -= key > last;
    }
    i64 count = 0;
    for (i64 b = 0; b < B; ++b) {
        begin[b] = static_cast<i32>(count);
        for (size_t i = 0; i < found[b].size() && count < wanted; ++i) {
            const T key = keys[b][i];
            if (key < last || (key == last && last > 0 && ties-- <= 0)) continue;
            const i32 f = found[b][i];
            index[count] = f;
            value[count] = bias ? pre[b * F + f] + bias[f] : pre[b * F + f];
            key_out[count++] = key;
        }
        end[b] = static_cast<i32>(count);
    }
    return count;
}

// sum += a0 * r0 + ... over rows of D numbers, four at a time to spare loads of `sum`.
template <class T, class Row, class Weight>
void add_rows(T* __restrict sum, i64 D, i64 from, i64 to, Row row, Weight weight) {
    i64 i = from;
    for (; i + 4 <= to; i += 4) {
        const T *r0 = row(i), *r1 = row(i + 1), *r2 = row(i + 2), *r3 = row(i + 3);
        const T a0 = weight(i), a1 = weight(i + 1), a2 = weight(i + 2), a3 = weight(i + 3);
#pragma omp simd
        for (i64 d = 0; d < D; ++d)
            sum[d] += (a0 * r0[d] + a1 * r1[d]) + (a2 * r2[d] + a3 * r3[d]);
    }
    for (; i < to; ++i) {
        const T* r = row(i);
        const T a = weight(i);
#pragma omp simd
        for (i64 d = 0; d < D; ++d) sum[d] += a * r[d];
    }
}

template <class T>
T dot(const T* __restrict x, const T* __restrict y, i64 D) {
    T sum = 0;
#pragma omp simd reduction(+ : sum)
    for (i64 d = 0; d < D; ++d) sum += x[d] * y[d];
    return sum;
}

// Per token: reconstruction of each level (latents below width[l], levels nested) minus
// sign * target, its squares summed into loss[l, b]; then pull[l] = the errors of level l and all
// wider ones summed, which is what pulls at a latent of level l; then dots = pull . row of W_dec.
template <class T>
void decode(const i32* begin, const i32* end, const i32* index, const T* value, const T* W_dec,
            const T* bias, const T* target, T sign, const i32* width, i64 L, i64 B, i64 D, T* pull,
            T* loss, T* dots, i64 threads) {
#pragma omp parallel num_threads(threads)
    {
        std::vector<T> sum(D);
#pragma omp for schedule(static)
        for (i64 b = 0; b < B; ++b) {
            if (bias)
                std::copy(bias, bias + D, sum.begin());
            else
                std::fill(sum.begin(), sum.end(), T(0));
            const T* goal = target + b * D;
            i32 cut[kMaxLevels + 1];
            cut[0] = begin[b];
            for (i64 l = 0; l < L; ++l) {
                i32 to = l + 1 == L ? end[b] : cut[l];
                while (to < end[b] && index[to] < width[l]) ++to;
                cut[l + 1] = to;
                add_rows<T>(
                    sum.data(), D, cut[l], to, [&](i64 i) { return W_dec + i64(index[i]) * D; },
                    [&](i64 i) { return value[i]; });
                T* error = pull + (l * B + b) * D;
                T squares = 0;
                const T* total = sum.data();
#pragma omp simd reduction(+ : squares)
                for (i64 d = 0; d < D; ++d) {
                    const T e = total[d] - sign * goal[d];
                    error[d] = e;
                    squares += e * e;
                }
                loss[l * B + b] = squares;
            }
            for (i64 l = L - 2; l >= 0; --l) {
                T* narrow = pull + (l * B + b) * D;
                const T* wide = pull + ((l + 1) * B + b) * D;
#pragma omp simd
                for (i64 d = 0; d < D; ++d) narrow[d] += wide[d];
            }
            for (i64 l = 0; l < L; ++l)
                for (i64 i = cut[l]; i < cut[l + 1]; ++i)
                    dots[i] = dot(pull + (l * B + b) * D, W_dec + i64(index[i]) * D, D);
        }
    }
}

// Turns the entries by token into entries by latent, tokens rising: start[F + 1], place[N] (the
// entry's number) and token[N].
void by_latent(const i32* begin, const i32* end, const i32* index, i64 B, i64 F, i32* start,
               i32* place, i32* token, i64 threads) {
    std::fill(start, start + F + 1, 0);
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (i64 part = 0; part < threads; ++part) {
        const i64 low = F * part / threads, high = F * (part + 1) / threads;
        for (i64 b = 0; b < B; ++b)
            for (i32 i = begin[b]; i < end[b]; ++i)
                if (index[i] >= low && index[i] < high) ++start[index[i] + 1];
    }
    for (i64 f = 0; f < F; ++f) start[f + 1] += start[f];
#pragma omp parallel for num_threads(threads) schedule(static, 1)
    for (i64 part = 0; part < threads; ++part) {
        const i64 low = F * part / threads, high = F * (part + 1) / threads;
        std::vector<i32> next(start + low, start + high);
        for (i64 b = 0; b < B; ++b)
            for (i32 i = begin[b]; i < end[b]; ++i) {
                if (index[i] < low || index[i] >= high) continue;
                const i32 at = next[index[i] - low]++;
                place[at] = i;
                token[at] = static_cast<i32>(b);
            }
    }
}

// Per latent f: grad_dec[f] (+)= scale * sum value * pull[level of f, token],
// grad_enc[f] = sum grad_pre * input[token] and grad_bias[f] = sum grad_pre; the last two are left
// out where there is no grad_pre, the first where there is no pull.
template <class T>
void accumulate(const i32* start, const i32* place, const i32* token, const T* value,
                const T* grad_pre, const T* pull, const i32* width, i64 L, const T* input, T scale,
                i64 B, i64 F, i64 D, i64 adds, T* grad_dec, T* grad_enc, T* grad_bias,
                i64 threads) {
#pragma omp parallel for num_threads(threads) schedule(dynamic, 16)
    for (i64 f = 0; f < F; ++f) {
        const i64 from = start[f], to = start[f + 1];
        if (pull) {
            T* dec = grad_dec + f * D;
            if (!adds) std::memset(dec, 0, D * sizeof(T));
            i64 l = 0;
            while (l + 1 < L && f >= width[l]) ++l;
            const T* pulled = pull + l * B * D;
            add_rows<T>(
                dec, D, from, to, [&](i64 i) { return pulled + i64(token[i]) * D; },
                [&](i64 i) { return scale * value[place[i]]; });
        }
        if (grad_pre) {
            T* enc = grad_enc + f * D;
            std::memset(enc, 0, D * sizeof(T));
            T bias = 0;
            for (i64 i = from; i < to; ++i) bias += grad_pre[place[i]];
            grad_bias[f] = bias;
            add_rows<T>(
                enc, D, from, to, [&](i64 i) { return input + i64(token[i]) * D; },
                [&](i64 i) { return grad_pre[place[i]]; });
        }
    }
}

// How many latents of each token have !(pre + bias <= bound); returns the sum.
template <class T>
i64 count_above(const T* pre, const T* bias, const T* bound, i64 B, i64 F, i32* count,
                i64 threads) {
    i64 total = 0;
#pragma omp parallel for num_threads(threads) schedule(static) reduction(+ : total)
    for (i64 b = 0; b < B; ++b) {
        const T* row = pre + b * F;
        i32 here = 0;
#pragma omp simd reduction(+ : here)
        for (i64 f = 0; f < F; ++f) here += !(row[f] + bias[f] <= bound[f]);
        count[b] = here;
        total += here;
    }
    return total;
}

// The entries that `count_above` counted, packed from begin[b] on; the values are `pre`.
template <class T>
void take_above(const T* pre, const T* bias, const T* bound, i64 B, i64 F, const i32* begin,
                i32* index, T* value, i64 threads) {
#pragma omp parallel num_threads(threads)
    {
        RowScratch<T> scratch(F);
#pragma omp for schedule(static)
        for (i64 b = 0; b < B; ++b) {
            const T* row = pre + b * F;
            T* over = scratch.key.data();
#pragma omp simd
            for (i64 f = 0; f < F; ++f) over[f] = row[f] + bias[f] <= bound[f] ? T(-1) : T(1);
            const i64 count = collect(over, F, T(0), scratch.found.data());
            for (i64 i = 0; i < count; ++i) {
                index[begin[b] + i] = scratch.found[i];
                value[begin[b] + i] = row[scratch.found[i]];
            }
        }
    }
}

template <class T>
void sum_tokens(const i32* start, const i32* place, const T* x, i64 F, T* sum, i64 threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 f = 0; f < F; ++f) {
        T total = 0;
        for (i32 i = start[f]; i < start[f + 1]; ++i) total += x[place[i]];
        sum[f] = total;
    }
}

template <class T>
void sum_latents(const i32* begin, const i32* end, const T* x, i64 B, T* sum, i64 threads) {
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 b = 0; b < B; ++b) {
        T total = 0;
        for (i32 i = begin[b]; i < end[b]; ++i) total += x[i];
        sum[b] = total;
    }
}

constexpr i64 kChunk = 8192;

template <class T>
double sum_squares(const T* x, i64 n, i64 threads) {
    const i64 num_chunks = (n + kChunk - 1) / kChunk;
    std::vector<double> part(num_chunks);
#pragma omp parallel for num_threads(threads) schedule(static)
    for (i64 c = 0; c < num_chunks; ++c) {
        const i64 to = std::min(n, (c + 1) * kChunk);
        double sum = 0;
        for (i64 i = c * kChunk; i < to; i += 512) {
            T inner = 0;
            const i64 stop = std::min(to, i + 512);
#pragma omp simd reduction(+ : inner)
            for (i64 j = i; j < stop; ++j) inner += x[j] * x[j];
            sum += inner;
        }
        part[c] = sum;
    }
    double sum = 0;
    for (const double each : part) sum += each;
    return sum;
}

template <class T>
struct Adam {
    T clip, beta1, beta2, rest1, rest2, root2, eps, rate;
    void update(T& p, T g, T& m, T& v) const {
        g *= clip;
        m += rest1 * (g - m);
        v = v * beta2 + rest2 * g * g;
        p -= rate * (m / (std::sqrt(v) / root2 + eps));
    }
};

// numbers: clip, beta1, beta2, 1 - beta1, 1 - beta2, sqrt(1 - beta2^t), eps, lr / (1 - beta1^t).
template <class T>
Adam<T> adam_of(const double* numbers) {
    return {T(numbers[0]), T(numbers[1]), T(numbers[2]), T(numbers[3]),
            T(numbers[4]), T(numbers[5]), T(numbers[6]), T(numbers[7])};
}

template <class T>
void adam(T* param, const T* grad, T* mean, T* square, i64 n, const double* numbers, i64 threads) {
    const Adam<T> rule = adam_of<T>(numbers);
    const i64 num_chunks = (n + kChunk - 1) / kChunk;
#pragma omp parallel num_threads(threads)
    {
        FlushSubnormals flush;
#pragma omp for schedule(static)
        for (i64 c = 0; c < num_chunks; ++c) {
            const i64 to = std::min(n, (c + 1) * kChunk);
#pragma omp simd
            for (i64 i = c * kChunk; i < to; ++i)
                rule.update(param[i], grad[i], mean[i], square[i]);
        }
    }
}

// As `adam`, of a parameter [D, F] whose gradient is given as [F, D].
template <class T>
void adam_transposed(T* param, const T* grad, T* mean, T* square, i64 D, i64 F,
                     const double* numbers, i64 threads) {
    // A row of the tile is padded: at a power of two its lines would share one set of the cache.
    constexpr i64 kWide = 256, kHigh = 16, kPitch = kWide + 16;
    const Adam<T> rule = adam_of<T>(numbers);
    const i64 num_wide = (F + kWide - 1) / kWide, num_high = (D + kHigh - 1) / kHigh;
#pragma omp parallel num_threads(threads)
    {
        FlushSubnormals flush;
        std::vector<T> tile(kPitch * kHigh);
#pragma omp for collapse(2) schedule(static)
        for (i64 high = 0; high < num_high; ++high)
            for (i64 wide = 0; wide < num_wide; ++wide) {
                const i64 d0 = high * kHigh, f0 = wide * kWide;
                const i64 rows = std::min(kHigh, D - d0), columns = std::min(kWide, F - f0);
                for (i64 f = 0; f < columns; ++f)
                    for (i64 d = 0; d < rows; ++d)
                        tile[d * kPitch + f] = grad[(f0 + f) * D + d0 + d];
                for (i64 d = 0; d < rows; ++d) {
                    const i64 at = (d0 + d) * F + f0;
                    const T* g = tile.data() + d * kPitch;
                    T *p = param + at, *m = mean + at, *v = square + at;
#pragma omp simd
                    for (i64 f = 0; f < columns; ++f) rule.update(p[f], g[f], m[f], v[f]);
                }
            }
    }
}

// How bytes are read and written: see byte_maps.py.
struct ByteMap {
    const float *value, *bound;
    const i32* guess;
};
constexpr int kGuessFirst = (127 - 24) << 7, kGuessLast = 24 << 7, kSignedZero = 127;

// Place of x, between zero and one, among the map's magnitudes.
inline int place_of(const ByteMap& map, float x) {
    i32 bits;
    std::memcpy(&bits, &x, sizeof bits);
    const int high = std::min(std::max((bits >> 16) - kGuessFirst, 0), kGuessLast);
    const int place = map.guess[high];
    return place + (x > map.bound[place]);
}

// Writes n numbers as bytes; returns their largest magnitude.
template <bool kSigned>
float encode(const ByteMap& map, const float* x, i64 n, uint8_t* code) {
    float scale = 0;
    int is_nan = 0;
#pragma omp simd reduction(max : scale) reduction(| : is_nan)
    for (i64 i = 0; i < n; ++i) {
        scale = std::max(scale, std::abs(x[i]));
        is_nan |= x[i] != x[i];
    }
    const float divisor = scale > 0 ? scale : 1;
#pragma omp simd
    for (i64 i = 0; i < n; ++i) {
        const int place = place_of(map, std::abs(x[i]) / divisor);
        const int mirrored = x[i] < 0 ? std::max(kSignedZero - place, 0) : kSignedZero + place;
        code[i] = uint8_t(kSigned ? mirrored : place);
    }
    return is_nan ? std::numeric_limits<float>::quiet_NaN() : scale;
}

// Adam on moments of a byte each, rows of C in blocks of 256. Strides are of parameter and
// gradient: rows and columns. Tiles are copied along what is contiguous.
void coded_adam(float* param, i64 param_row, i64 param_column, const float* grad, i64 grad_row,
                i64 grad_column, uint8_t* mean, float* mean_scale, uint8_t* square,
                float* square_scale, i64 R, i64 C, const ByteMap& mean_map,
                const ByteMap& square_map, const double* numbers, i64 threads) {
    constexpr i64 kBlock = 256, kHigh = 16, kPitch = kBlock + 16;
    const Adam<float> rule = adam_of<float>(numbers);
    const i64 num_high = (R + kHigh - 1) / kHigh, num_blocks = (C + kBlock - 1) / kBlock;
    const auto copy = [](float* to, i64 to_row, i64 to_column, const float* from, i64 from_row,
                         i64 from_column, i64 rows, i64 columns, bool by_column) {
        if (!by_column)
            for (i64 r = 0; r < rows; ++r)
                for (i64 c = 0; c < columns; ++c)
                    to[r * to_row + c * to_column] = from[r * from_row + c * from_column];
        else
            for (i64 c = 0; c < columns; ++c)
                for (i64 r = 0; r < rows; ++r)
                    to[r * to_row + c * to_column] = from[r * from_row + c * from_column];
    };
#pragma omp parallel num_threads(threads)
    {
        FlushSubnormals flush;
        std::vector<float> p_tile(kPitch * kHigh), g_tile(kPitch * kHigh);
        float m[kBlock], v[kBlock];
#pragma omp for collapse(2) schedule(static)
        for (i64 high = 0; high < num_high; ++high)
            for (i64 block = 0; block < num_blocks; ++block) {
                const i64 r0 = high * kHigh, c0 = block * kBlock;
                const i64 rows = std::min(kHigh, R - r0), columns = std::min(kBlock, C - c0);
                float* p_from = param + r0 * param_row + c0 * param_column;
                const float* g_from = grad + r0 * grad_row + c0 * grad_column;
                copy(p_tile.data(), kPitch, 1, p_from, param_row, param_column, rows, columns,
                     param_row == 1);
                copy(g_tile.data(), kPitch, 1, g_from, grad_row, grad_column, rows, columns,
                     grad_row == 1);
                for (i64 r = 0; r < rows; ++r) {
                    const i64 at = (r0 + r) * C + c0, scale = (r0 + r) * num_blocks + block;
                    float* p = p_tile.data() + r * kPitch;
                    const float* g = g_tile.data() + r * kPitch;
                    const float m_scale = mean_scale[scale], v_scale = square_scale[scale];
#pragma omp simd
                    for (i64 c = 0; c < columns; ++c) {
                        m[c] = mean_map.value[mean[at + c]] * m_scale;
                        v[c] = square_map.value[square[at + c]] * v_scale;
                        rule.update(p[c], g[c], m[c], v[c]);
                    }
                    mean_scale[scale] = encode<true>(mean_map, m, columns, mean + at);
                    square_scale[scale] = encode<false>(square_map, v, columns, square + at);
                }
                copy(p_from, param_row, param_column, p_tile.data(), kPitch, 1, rows, columns,
                     param_row == 1);
            }
    }
}

}  // namespace

#define SAEQ_KERNELS(T, S)                                                                        \
    void saeq_select_tokens_##S(const T* pre, const T* bias, const T* norm, i64 B, i64 F, i64 k,  \
                                i64 signed_values, i32* begin, i32* end, i32* index, T* value,    \
                                i64 threads) {                                                    \
        select_tokens<T>(pre, bias, norm, B, F, k, signed_values, begin, end, index, value,       \
                         threads);                                                                \
    }                                                                                             \
    i64 saeq_select_batch_##S(const T* pre, const T* bias, const T* norm, i64 B, i64 F,           \
                              i64 wanted, i32* begin, i32* end, i32* index, T* value, T* key,     \
                              i64 threads) {                                                      \
        return select_batch<T>(pre, bias, norm, B, F, wanted, begin, end, index, value, key,      \
                               threads);                                                          \
    }                                                                                             \
    void saeq_decode_##S(const i32* begin, const i32* end, const i32* index, const T* value,      \
                         const T* W_dec, const T* bias, const T* target, double sign,             \
                         const i32* width, i64 L, i64 B, i64 D, T* pull, T* loss, T* dots,        \
                         i64 threads) {                                                           \
        decode<T>(begin, end, index, value, W_dec, bias, target, T(sign), width, L, B, D, pull,   \
                  loss, dots, threads);                                                           \
    }                                                                                             \
    void saeq_accumulate_##S(const i32* start, const i32* place, const i32* token,                \
                             const T* value, const T* grad_pre, const T* pull, const i32* width,  \
                             i64 L, const T* input, double scale, i64 B, i64 F, i64 D, i64 adds,  \
                             T* grad_dec, T* grad_enc, T* grad_bias, i64 threads) {               \
        accumulate<T>(start, place, token, value, grad_pre, pull, width, L, input, T(scale), B,   \
                      F, D, adds, grad_dec, grad_enc, grad_bias, threads);                        \
    }                                                                                             \
    i64 saeq_count_above_##S(const T* pre, const T* bias, const T* bound, i64 B, i64 F,           \
                             i32* count, i64 threads) {                                           \
        return count_above<T>(pre, bias, bound, B, F, count, threads);                            \
    }                                                                                             \
    void saeq_take_above_##S(const T* pre, const T* bias, const T* bound, i64 B, i64 F,           \
                             const i32* begin, i32* index, T* value, i64 threads) {               \
        take_above<T>(pre, bias, bound, B, F, begin, index, value, threads);                      \
    }                                                                                             \
    void saeq_sum_tokens_##S(const i32* start, const i32* place, const T* x, i64 F, T* sum,       \
                             i64 threads) {                                                       \
        sum_tokens<T>(start, place, x, F, sum, threads);                                          \
    }                                                                                             \
    void saeq_sum_latents_##S(const i32* begin, const i32* end, const T* x, i64 B, T* sum,        \
                              i64 threads) {                                                      \
        sum_latents<T>(begin, end, x, B, sum, threads);                                           \
    }                                                                                             \
    double saeq_sum_squares_##S(const T* x, i64 n, i64 threads) {                                 \
        return sum_squares<T>(x, n, threads);                                                     \
    }                                                                                             \
    void saeq_adam_##S(T* param, const T* grad, T* mean, T* square, i64 n, const double* numbers, \
                       i64 threads) {                                                             \
        adam<T>(param, grad, mean, square, n, numbers, threads);                                  \
    }                                                                                             \
    void saeq_adam_transposed_##S(T* param, const T* grad, T* mean, T* square, i64 D, i64 F,      \
                                  const double* numbers, i64 threads) {                           \
        adam_transposed<T>(param, grad, mean, square, D, F, numbers, threads);                    \
    }

extern "C" {

SAEQ_KERNELS(float, f32)
SAEQ_KERNELS(double, f64)

void saeq_by_latent(const i32* begin, const i32* end, const i32* index, i64 B, i64 F, i32* start,
                    i32* place, i32* token, i64 threads) {
    by_latent(begin, end, index, B, F, start, place, token, threads);
}

void saeq_coded_adam(float* param, i64 param_row, i64 param_column, const float* grad, i64 grad_row,
                     i64 grad_column, uint8_t* mean, float* mean_scale, uint8_t* square,
                     float* square_scale, i64 R, i64 C, const float* mean_value,
                     const float* mean_bound, const i32* mean_guess, const float* square_value,
                     const float* square_bound, const i32* square_guess, const double* numbers,
                     i64 threads) {
    coded_adam(param, param_row, param_column, grad, grad_row, grad_column, mean, mean_scale,
               square, square_scale, R, C, {mean_value, mean_bound, mean_guess},
               {square_value, square_bound, square_guess}, numbers, threads);
}

}
