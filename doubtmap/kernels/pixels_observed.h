/* What a tile's labels say of its softmax; included by pixels_tile.h once per instruction set. */

/* Doubts and Brier scores of all pixels, and sums of those with a label: as `observed.py` has them,
 * in doubles, by bins of confidence, by class and bins of its probability, losses, and confusion. */
static TARGET void VARIANT(observe_tile)(const struct job *job, const float *values,
                                         ptrdiff_t stride, int n, ptrdiff_t pixel,
                                         const struct tile *to, float *restrict block) {
    int32_t truth[TILE], chosen[TILE];
    float first[TILE], total[TILE], others[TILE], missing[TILE], squares[TILE], own[TILE];
    const int classes = job->channels, bins = job->bins;
    const int64_t *labels = job->labels + pixel, *predicted = job->predicted + pixel;
    float *restrict doubt = to->maps[MAX_SOFTMAX], *restrict error = job->errors + pixel;
    EACH_PIXEL {
        truth[x] = (int32_t)labels[x];
        chosen[x] = (int32_t)predicted[x];
        first[x] = values[x];
        total[x] = others[x] = missing[x] = squares[x] = own[x] = 0.0f;
    }
    EACH_CLASS {
        const float *a = values + k * stride;
        EACH_PIXEL first[x] = fmax_(first[x], a[x]);
    }
    EACH_CLASS {
        const float *a = values + k * stride;
        float *restrict odds = block + k * TILE_STRIDE(n);
        EACH_PIXEL {
            float below = a[x] - first[x], odd = VARIANT(exponential)(below);
            odds[x] = odd;
            total[x] += odd;
            others[x] += chosen[x] == k ? 0.0f : odd;
            missing[x] += truth[x] == k ? 0.0f : odd;
            squares[x] += truth[x] == k ? 0.0f : odd * odd;
            own[x] = truth[x] == k ? below : own[x];
        }
    }
    EACH_PIXEL {
        float share = 1.0f / total[x], odd = VARIANT(exponential)(own[x]);
        doubt[x] = others[x] * share;
        error[x] = (missing[x] * missing[x] + squares[x]) * share * share;
        /* -log of the label's probability, which may be next to 1, or next to 0 */
        float near = VARIANT(logarithm_1p)(missing[x] / fmax_(odd, 1e-30f));
        float far = VARIANT(logarithm_of_normal)(total[x]) - own[x];
        own[x] = odd > 1e-30f ? near : far;
        total[x] = share;
    }
    double *confidence = to->sums, *classwise = confidence + 3 * bins;
    double *losses = classwise + 3 * classes * bins, *confusion = losses + 3;
    int labelled = 0;
    for (int x = 0; x < n; x++) {
        const int k = truth[x];
        if (k < 0) continue;
        const float sure = 1.0f - doubt[x], p = block[k * TILE_STRIDE(n) + x] * total[x];
        double *bin = confidence + 3 * bin_of(sure, bins);
        bin[0] += 1.0;
        bin[1] += k == chosen[x];
        bin[2] += sure;
        classwise[3 * (k * bins + bin_of(p, bins)) + 1] += 1.0;
        losses[1] += error[x];
        losses[2] += own[x];
        confusion[k * classes + chosen[x]] += 1.0;
        labelled++;
    }
    losses[0] += labelled;
    const float every = (float)bins;
    EACH_CLASS { /* most probabilities lie in the first bin */
        float *restrict p = block + k * TILE_STRIDE(n);
        double *sums = classwise + 3 * k * bins, sum = 0.0;
        int held = 0;
#pragma omp simd reduction(+ : sum, held)
        for (int x = 0; x < n; x++) {
            p[x] *= total[x];
            int inside = truth[x] >= 0 && p[x] * every <= 1.0f;
            sum += inside ? (double)p[x] : 0.0;
            held += inside;
        }
        sums[0] += held;
        sums[2] += sum;
        if (held == labelled) continue;
        for (int x = 0; x < n; x++) {
            if (truth[x] < 0 || p[x] * every <= 1.0f) continue;
            double *bin = sums + 3 * bin_of(p[x], bins);
            bin[0] += 1.0;
            bin[2] += p[x];
        }
    }
}
