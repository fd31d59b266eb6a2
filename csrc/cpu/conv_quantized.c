/* A convolution by weights of uint8, which are unpacked while compiling: weight * quant_scale + quant_bias. */
#include "conv.h"

#include <string.h>

/* y[i] = x[i] * scale + offset, in the dtype of y; n of them for each of the `channels` */
static void unpack(const anex_tensor *x, const anex_tensor *scale, const anex_tensor *offset, int64_t channels,
                   anex_dtype dtype, void *y) {
    int64_t n = anex_tensor_size(x) / channels;
    for (int64_t i = 0; i < channels * n; i++) {
        float by = scale ? (float)anex_real(scale, anex_tensor_size(scale) == 1 ? 0 : i / n) : 1;
        float plus = offset ? (float)anex_real(offset, anex_tensor_size(offset) == 1 ? 0 : i / n) : 0;
        float value = (float)anex_item(x, i) * by + plus;
        if (dtype == ANEX_F16)
            ((half *)y)[i] = anex_float_to_half(value);
        else
            ((float *)y)[i] = value;
    }
}

ANEX_KERNEL(conv_quantized) {
    /* as conv's, then four more */
    enum { X, WEIGHT, BIAS, STRIDES, PAD_TYPE, PAD, DILATIONS, GROUPS, TYPE, NBITS, SCALE, OFFSET };
    const uint32_t own = 1u << WEIGHT | 1u << BIAS | 1u << TYPE | 1u << NBITS | 1u << SCALE | 1u << OFFSET;
    anex_status status = anex_need_constants(node, own, error);
    if (status) return status;
    const anex_tensor *x = node->in[X], *weight = node->in[WEIGHT], *bias = node->in[BIAS];
    if (strcmp(anex_text(node->in[TYPE], "linear"), "linear"))
        return anex_node_fail(node, error, ANEX_UNSUPPORTED,
                              "quantization_type \"%s\" needs a table, for which the op has no argument; use conv with a "
                              "weight of constexpr_lut_to_dense",
                              anex_text(node->in[TYPE], ""));
    int64_t channels = weight->shape[0];
    for (int32_t i = SCALE; i <= OFFSET; i++)
        if (node->in[i] && anex_tensor_size(node->in[i]) != 1 && anex_tensor_size(node->in[i]) != channels)
            return anex_node_fail(node, error, ANEX_SHAPE, "quant_scale and quant_bias have one value, or one for each of "
                                  "the %lld output channels", (long long)channels);
    void *data = anex_node_replace(node, WEIGHT, x->dtype, error);
    if (!data) return ANEX_MEMORY;
    unpack(weight, node->in[SCALE], node->in[OFFSET], channels, x->dtype, data);
    if (bias) {
        data = anex_node_replace(node, BIAS, x->dtype, error);
        if (!data) return ANEX_MEMORY;
        unpack(bias, NULL, NULL, 1, x->dtype, data);
    }
    node->packed |= 1u << TYPE | 1u << NBITS | 1u << SCALE | 1u << OFFSET;
    return ANEX_LOCAL(kernel_conv)(node, error);
}
