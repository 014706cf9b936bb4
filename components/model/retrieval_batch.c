/* The lists of many users, one after the other: what retrieval_batch.py calls, and says in words.

A user's row of pulls is as large as a near cache, and everything that is done to it is done while it is there. Nothing
is allocated and nothing is kept; who calls gives all memory, and has checked every index that it holds.

Legend of shape suffixes: I items by index, W columns, E entries of the columns' filter rows, A attributes, V the
values of all, D dimensions, B users, N entries of their histories, R runs of columns, C candidates, k places of a list. */

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

struct tables {
    int64_t num_items, num_columns, num_attributes, num_values, num_dimensions;
    const int64_t *starts_I; /* (I + 1,) of filter rows */
    const int32_t *column_E;
    const float *pull_E;
    const int32_t *column_I; /* -1: no column */
    const int32_t *item_W;
    const int32_t *value_IA, *value_WA;
    const int64_t *first_A; /* (A + 1,) of an attribute's values */
    const float *over_prior_V, *weight_V;
    const float *target_ID;
    double filter_weight, greatest, log_floor, filter_floor, prior, longest_target, rounding, least_rms, most_exponent;
};

struct users {
    int64_t num_users, k;
    double outside; /* the most that anybody gets that is no column */
    const int64_t *starts_B; /* (B + 1,) of histories */
    const int64_t *item_N;
    const float *strength_N;
    const float *vector_BD; /* times w_similarity / tau */
    const float *rise_W;    /* exp((static - greatest) / w_filter); 0: may not be listed */
    /* Scratch. over_V is all zero, and left so; q_W has as many zeros behind it as a run may lack. */
    float *q_W, *most_R, *lift_V, *over_V;
    /* Found. */
    int32_t *item_Bk;
    float *score_Bk;
    uint8_t *is_whole_B;
};

/* Of one user. */
struct asked {
    const struct tables *of;
    const float *lift_V, *vector_D;
    double same; /* w_filter log q + same: what filter and static add to a score */
    double reach_similarity;
    double need; /* of all but the similarity, to be listed */
    int64_t k, num_found;
    int32_t *item_k;
    float *score_k;
};

static const float LEAST_Q = 1e-37f;

enum {
    AHEAD = 2, /* rows that are fetched while one is added up */
    RUN = 32,  /* columns that are looked at together, by the greatest of them */
    SOME = 32, /* candidates, each of them fetched before the first is looked at */
    LANES = 8,
};

/* What an item needs without a part that adds `by` at most. */
static double lowered(const struct tables *of, double floor, double by) {
    return floor - by - of->rounding * fmax(1.0, fabs(floor));
}

static void fetch(const void *first, const void *end) {
    for (const char *at = first; at < (const char *)end; at += 64)
        __builtin_prefetch(at);
}

static void fetch_row(const struct tables *of, int64_t item) {
    fetch(of->column_E + of->starts_I[item], of->column_E + of->starts_I[item + 1]);
    fetch(of->pull_E + of->starts_I[item], of->pull_E + of->starts_I[item + 1]);
    fetch(of->value_IA + item * of->num_attributes, of->value_IA + (item + 1) * of->num_attributes);
}

static float dot(const float *one_D, const float *other_D, int64_t num_dimensions) {
    float sums[LANES] = {0}, sum = 0;
    int64_t d = 0;
    for (; d + LANES <= num_dimensions; d += LANES)
        for (int lane = 0; lane < LANES; lane++)
            sums[lane] += one_D[d + lane] * other_D[d + lane];
    for (; d < num_dimensions; d++)
        sum += one_D[d] * other_D[d];
    for (int lane = 0; lane < LANES; lane++)
        sum += sums[lane];
    return sum;
}

static float greatest(const float *values, int64_t length) {
    float most[LANES], found = -FLT_MAX;
    int64_t at = 0;
    for (int lane = 0; lane < LANES; lane++)
        most[lane] = -FLT_MAX;
    for (; at + LANES <= length; at += LANES)
        for (int lane = 0; lane < LANES; lane++)
            most[lane] = values[at + lane] > most[lane] ? values[at + lane] : most[lane];
    for (; at < length; at++)
        found = values[at] > found ? values[at] : found;
    for (int lane = 0; lane < LANES; lane++)
        found = most[lane] > found ? most[lane] : found;
    return found;
}

/* How far a history leads to each column, in q_W, and what each value counts, in over_V. */
static double add_up(const struct tables *of, const int64_t *item_N, const float *strength_N, int64_t length,
                     float *restrict q_W, float *restrict over_V) {
    double total = 0;
    memset(q_W, 0, sizeof(float) * of->num_columns);
    for (int64_t n = 0; n < length && n < AHEAD; n++)
        fetch_row(of, item_N[n]);
    for (int64_t n = 0; n < length; n++) {
        if (n + 3 * AHEAD < length)
            __builtin_prefetch(of->starts_I + item_N[n + 3 * AHEAD]);
        if (n + AHEAD < length)
            fetch_row(of, item_N[n + AHEAD]);
        const int64_t item = item_N[n], num_entries = of->starts_I[item + 1] - of->starts_I[item];
        const int32_t *restrict column_E = of->column_E + of->starts_I[item];
        const float *restrict pull_E = of->pull_E + of->starts_I[item];
        const float strength = strength_N[n];
        for (int64_t e = 0; e < num_entries; e++)
            q_W[column_E[e]] += strength * pull_E[e];
        const int32_t *value_A = of->value_IA + item * of->num_attributes;
        for (int64_t a = 0; a < of->num_attributes; a++)
            over_V[value_A[a]] += strength;
        total += strength;
    }
    return total;
}

/* The affinity of every value (tastes.py), and the most that they can add together. over_V is made zero. */
static double take_tastes(const struct tables *of, const int64_t *item_N, int64_t length, double total,
                          float *restrict lift_V, float *restrict over_V) {
    const float lacking = (float)log(of->prior / (total + of->prior));
    for (int64_t v = 0; v < of->num_values; v++)
        lift_V[v] = lacking * of->weight_V[v];
    for (int64_t n = 0; n < length; n++) {
        const int32_t *value_A = of->value_IA + item_N[n] * of->num_attributes;
        for (int64_t a = 0; a < of->num_attributes; a++) {
            const int32_t v = value_A[a];
            if (over_V[v] != 0) {
                lift_V[v] = (logf(over_V[v] * of->over_prior_V[v] + 1) + lacking) * of->weight_V[v];
                over_V[v] = 0;
            }
        }
    }
    double reach = 0;
    for (int64_t a = 0; a < of->num_attributes; a++)
        reach += greatest(lift_V + of->first_A[a], of->first_A[a + 1] - of->first_A[a]);
    return reach;
}

static double root_mean_square(const float *pull_W, int64_t num_columns, int64_t num_items) {
    return sqrt((double)dot(pull_W, pull_W, num_columns) / (double)num_items);
}

/* (pull + floor) rise, in place, and the greatest of each run. */
static void make_q(float *restrict q_W, const float *restrict rise_W, int64_t num_columns, float floor,
                   float *restrict most_R) {
    for (int64_t c = 0; c < num_columns; c++)
        q_W[c] = (q_W[c] + floor) * rise_W[c];
    for (int64_t first = 0; first < num_columns; first += RUN)
        most_R[first / RUN] = greatest(q_W + first, RUN);
}

/* The k-th greatest, 0 where there are fewer; `greatest_k` is scratch. */
static float kth_greatest(const float *values, int64_t length, float *greatest_k, int64_t k) {
    for (int64_t at = 0; at < k; at++)
        greatest_k[at] = 0;
    for (int64_t v = 0; v < length; v++) {
        int64_t at = k - 1;
        if (values[v] <= greatest_k[at])
            continue;
        for (; at > 0 && values[v] > greatest_k[at - 1]; at--)
            greatest_k[at] = greatest_k[at - 1];
        greatest_k[at] = values[v];
    }
    return greatest_k[k - 1];
}

static void list(struct asked *user, int32_t item, float score) {
    int64_t at = user->num_found;
    if (at == user->k) {
        at--;
        if (score < user->score_k[at] || (score == user->score_k[at] && item > user->item_k[at]))
            return;
    } else {
        user->num_found++;
    }
    for (; at > 0 && (score > user->score_k[at - 1] || (score == user->score_k[at - 1] && item < user->item_k[at - 1]));
         at--) {
        user->score_k[at] = user->score_k[at - 1];
        user->item_k[at] = user->item_k[at - 1];
    }
    user->score_k[at] = score;
    user->item_k[at] = item;
    if (user->num_found == user->k)
        user->need = lowered(user->of, user->score_k[user->k - 1], user->reach_similarity);
}

/* Some columns: the rest of their scores is looked up as long as they can still be listed. */
static void consider(struct asked *user, const float *q_W, const int32_t *column_C, int num_candidates) {
    const struct tables *of = user->of;
    const float weight = (float)of->filter_weight, same = (float)user->same;
    int32_t left_C[SOME];
    float affinity_C[SOME];
    int num_left = 0;
    for (int c = 0; c < num_candidates; c++) {
        const int32_t *value_A = of->value_WA + column_C[c] * of->num_attributes;
        fetch(value_A, value_A + of->num_attributes);
    }
    for (int c = 0; c < num_candidates; c++) {
        const int64_t column = column_C[c];
        const int32_t *value_A = of->value_WA + column * of->num_attributes;
        float affinity = 0;
        for (int64_t a = 0; a < of->num_attributes; a++)
            affinity += user->lift_V[value_A[a]];
        if (weight * logf(q_W[column]) + same + affinity < user->need)
            continue;
        left_C[num_left] = column_C[c];
        affinity_C[num_left++] = affinity;
        const float *target_D = of->target_ID + of->item_W[column] * of->num_dimensions;
        fetch(target_D, target_D + of->num_dimensions);
    }
    for (int c = 0; c < num_left; c++) {
        const int32_t item = of->item_W[left_C[c]];
        const float same_for_all = (float)(of->filter_weight * log((double)q_W[left_C[c]]) + user->same);
        const float similarity = dot(of->target_ID + item * of->num_dimensions, user->vector_D, of->num_dimensions);
        list(user, item, same_for_all + affinity_C[c] + similarity);
    }
}

/* The columns with least <= q < most. */
static void consider_all(struct asked *user, const float *q_W, const float *most_R, float least, float most) {
    const struct tables *of = user->of;
    int32_t column_C[SOME + RUN];
    int num_candidates = 0;
    for (int64_t first = 0; first < of->num_columns; first += RUN) {
        if (most_R[first / RUN] < least)
            continue;
        for (int c = 0; c < RUN; c++) { /* no branch: it could not be foreseen */
            column_C[num_candidates] = (int32_t)(first + c);
            num_candidates += (q_W[first + c] >= least) & (q_W[first + c] < most);
        }
        if (num_candidates >= SOME) {
            consider(user, q_W, column_C, SOME);
            num_candidates -= SOME;
            memcpy(column_C, column_C + SOME, sizeof(int32_t) * num_candidates);
        }
    }
    consider(user, q_W, column_C, num_candidates);
}

static uint8_t rank_one(const struct tables *of, const struct users *all, int64_t b) {
    const int64_t *item_N = all->item_N + all->starts_B[b];
    const int64_t length = all->starts_B[b + 1] - all->starts_B[b];
    float *q_W = all->q_W;
    const double total = add_up(of, item_N, all->strength_N + all->starts_B[b], length, q_W, all->over_V);
    const double reach_tastes = take_tastes(of, item_N, length, total, all->lift_V, all->over_V);
    double rms = root_mean_square(q_W, of->num_columns, of->num_items);
    if (rms > 0 && rms <= of->least_rms)
        return 0;
    rms = rms > 0 ? rms : 1;
    const float floor = (float)(of->filter_floor * rms);
    for (int64_t n = 0; n < length; n++)
        if (of->column_I[item_N[n]] >= 0)
            q_W[of->column_I[item_N[n]]] = -floor; /* q becomes 0: what is known is not listed */
    make_q(q_W, all->rise_W, of->num_columns, floor, all->most_R);

    const float *vector_D = all->vector_BD + b * of->num_dimensions;
    double square = 0;
    for (int64_t d = 0; d < of->num_dimensions; d++)
        square += (double)vector_D[d] * vector_D[d];
    struct asked user = {
        .of = of,
        .lift_V = all->lift_V,
        .vector_D = vector_D,
        .same = of->greatest - of->filter_weight * (log(rms) + of->log_floor),
        .reach_similarity = sqrt(square) * of->longest_target,
        .need = -FLT_MAX,
        .k = all->k,
        .item_k = all->item_Bk + b * all->k,
        .score_k = all->score_Bk + b * all->k,
    };
    const double reach = user.reach_similarity + reach_tastes;

    /* Any k columns give a floor; those of the greatest q give nearly the highest. */
    const int64_t num_runs = (of->num_columns + RUN - 1) / RUN;
    const float most = fmaxf(kth_greatest(all->most_R, num_runs, user.score_k, user.k), LEAST_Q);
    consider_all(&user, q_W, all->most_R, most, FLT_MAX);
    float least = LEAST_Q;
    if (user.num_found == user.k) {
        const double needed = (lowered(of, user.score_k[user.k - 1], reach) - of->greatest) / of->filter_weight;
        least = fmaxf((float)(exp(fmin(needed + of->log_floor, of->most_exponent)) * rms), LEAST_Q);
    }
    consider_all(&user, q_W, all->most_R, least, most);
    return user.num_found == user.k && all->outside < lowered(of, user.score_k[user.k - 1], reach);
}

void rank_batch(const struct tables *of, const struct users *all) {
    for (int64_t b = 0; b < all->num_users; b++)
        all->is_whole_B[b] = rank_one(of, all, b);
}
