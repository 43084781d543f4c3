"""What other libraries, books and papers call things that `attn` knows by another name. Entry: `find_synonym`."""

from __future__ import annotations

from collections.abc import Iterable

# Other names → ours, the likeliest first; a name of ours is offered only where it can stand.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    # fields
    **dict.fromkeys(("x", "input", "inputs", "vectors", "token_embeddings", "hidden_states", "inputs_embeds", "data"), ("embeddings",)),
    **dict.fromkeys(("vector", "emb"), ("embedding", "embeddings")),
    **dict.fromkeys(("words", "labels", "words_or_tokens", "sentence", "text"), ("tokens",)),
    **dict.fromkeys(("query", "queries", "query_states"), ("q",)),
    **dict.fromkeys(("key", "keys", "key_states"), ("k",)),
    **dict.fromkeys(("value", "values", "value_states"), ("v",)),
    "attention_mask": ("mask",),
    **dict.fromkeys(("attn_bias", "position_bias", "score_bias", "rel_pos_bias"), ("bias",)),
    **dict.fromkeys(("position_ids", "pos", "pos_ids"), ("positions",)),
    **dict.fromkeys(("seq_lens", "seqlens", "seqused_k", "context_lens", "nonpad_kv_seqlen"), ("lengths",)),
    **dict.fromkeys(("kv_cache", "past_key_value", "past_key_values", "cache"), ("past",)),
    **dict.fromkeys(("encoder_hidden_states", "encoder_output", "encoder_outputs", "context_embeddings"), ("memory",)),
    # learned arrays
    **dict.fromkeys(("w_query", "wq", "query_weight", "q_proj", "q_proj_weight", "w_qs"), ("w_q",)),
    **dict.fromkeys(("w_key", "wk", "key_weight", "k_proj", "k_proj_weight", "w_ks"), ("w_k",)),
    **dict.fromkeys(("w_value", "wv", "value_weight", "v_proj", "v_proj_weight", "w_vs"), ("w_v",)),
    **dict.fromkeys(("w_out", "wo", "o_proj", "out_proj", "out_proj_weight", "w_output"), ("w_o",)),
    **{name.format(x): (f"b_{x}",) for x in "qo" for name in ("bias_{}", "{}_bias")},
    **{f"{x}_bias": (f"b_{x}",) for x in "kv"},  # bias_k and bias_v are something else
    "attention_sinks": ("sinks",),
    # steps
    **dict.fromkeys(("attention_weights", "attn_weights", "attention", "attn", "attentions", "probs", "probabilities", "attention_probs", "attn_probs"), ("weights",)),
    **dict.fromkeys(("attention_scores", "attn_scores", "logits", "energy", "similarity", "similarities"), ("scores",)),
    **dict.fromkeys(("attention_output", "attn_output", "context_vector", "context_vectors", "context_vec", "attended"), ("context",)),
    **dict.fromkeys(("lse", "logsumexp", "softmax_lse"), ("log_sum_exp",)),
    # layouts
    **dict.fromkeys(("bshd", "bsnd", "blhd", "btnh", "bsnh"), ("bthd",)),
    **dict.fromkeys(("bhsd", "bnsd", "bhld", "bnth", "bnsh"), ("bhtd",)),
    **dict.fromkeys(("nhd", "shd", "tnd", "lhd"), ("thd",)),
    **dict.fromkeys(("hnd", "hsd", "hld"), ("htd",)),
    **dict.fromkeys(("torch", "pytorch", "nn.linear"), ("out-in",)),
    **dict.fromkeys(("keras", "flax", "jax", "tensorflow"), ("in-out",)),
    # options of parts, and choices
    **dict.fromkeys(("d_out", "dout", "out_dim", "dim_out", "output_dim", "out_features", "hidden"), ("dim",)),
    **dict.fromkeys(("num_heads", "n_heads", "n_head", "nhead", "nheads", "num_attention_heads"), ("heads",)),
    **dict.fromkeys(("num_kv_heads", "n_kv_heads", "num_key_value_heads", "n_head_kv", "num_query_groups", "num_groups"), ("kv_heads",)),
    **dict.fromkeys(("logit_softcapping", "attn_logit_softcapping", "logits_soft_cap", "logit_cap"), ("softcap",)),
    **dict.fromkeys(("softmax_scale", "sm_scale", "scaling", "attention_multiplier"), ("scale",)),
    "tau": ("temperature",),
    **dict.fromkeys(("overwrite", "exist_ok", "clobber"), ("force",)),
    **dict.fromkeys(("dropout_rate", "attn_dropout", "attention_dropout", "attn_pdrop", "attn_drop"), ("dropout",)),
    **dict.fromkeys(("local", "sliding", "swa", "banded"), ("window",)),
    **dict.fromkeys(("block_diagonal", "varlen", "packed"), ("document",)),
    **dict.fromkeys(("none", "no_mask", "unmasked", "bidirectional"), ("full",)),
    **dict.fromkeys(("is_causal", "triu", "tril", "lower_triangular", "autoregressive", "look_ahead"), ("causal",)),
    **dict.fromkeys(("mha", "multihead", "multi_head", "multi_head_attention"), ("multi-head", "torch-mha")),
    **dict.fromkeys(("multiheadattention", "nn.multiheadattention", "torch.nn.multiheadattention"), ("torch-mha", "multi-head")),
    **dict.fromkeys(("half", "fp16", "f16"), ("float16",)),
    **dict.fromkeys(("bf16",), ("bfloat16",)),
    **dict.fromkeys(("single", "fp32", "f32"), ("float32",)),
    **dict.fromkeys(("double", "fp64", "f64", "float"), ("float64",)),
    **dict.fromkeys(("gpt",), ("gpt2",)),
    **dict.fromkeys(("layernorm", "layer_norm"), ("layer",)),
    **dict.fromkeys(("rmsnorm", "rms_norm"), ("rms",)),
    **dict.fromkeys(("bahdanau", "tanh"), ("additive",)),
    **dict.fromkeys(("scaled_dot", "dot_product", "scaled_dot_product"), ("dot",)),
    **dict.fromkeys(("rotary", "rotary_embedding"), ("rope",)),
    **dict.fromkeys(("theta_base", "base", "rope_theta"), ("theta",)),
    # commands
    **dict.fromkeys(("heatmap", "figure", "draw", "visualize", "visualise", "imshow"), ("plot",)),
    **dict.fromkeys(("verify", "compare", "diff", "validate", "test", "allclose"), ("check",)),
    **dict.fromkeys(("run", "calculate", "attend", "forward", "calc"), ("compute",)),
    **dict.fromkeys(("show", "why", "derive", "walkthrough", "worksheet"), ("explain",)),
    **dict.fromkeys(("variants", "ls", "catalogue", "catalog", "parts"), ("list",)),
    **dict.fromkeys(("example", "examples", "sample", "samples", "tour"), ("demo",)),
    **dict.fromkeys(("settings", "configure"), ("config",)),
}  # fmt: skip
# Names that have no counterpart: what to do instead.
_WIDTH = "the width is that of the vectors; --projection linear:dim=N draws W_q, W_k and W_v of another"
_HEAD_WIDTH = "the width of one head; heads × that is `dim` of a projection, as in --heads 2 --projection linear:dim=8"
_SIZE = "sizes are those of the arrays, and none is given"
_NO_PADDING = "there true means padding; here `mask` is true for what may be seen: give its opposite, as (B, 1, 1, Tk), or `lengths`"
_MASK = (
    "booleans that are true for what may be seen, as in SDPA, are `mask`; those of nn.MultiheadAttention and nn.Transformer are the opposite; "
    "numbers that are added to the scores are `bias`"
)
_LONE_KEY = "it is one more key and value, the same for each item: append them to k and v"
_TURNED = "--position rope turns q and k by `positions`; attn list positions rope shows its options"
_OFFSETS = "`segments` numbers the document of each token, as in [0, 0, 1], with --mask document"
_PAST = '"past": {"k": …, "v": …} holds the keys and values of the cache'
_SHOWN = "--only weights shows them, of each head"
_CAUSAL = '"variant": {"mask": "causal"}, or --causal'
_WAYS_OUT: dict[str, str] = {
    **dict.fromkeys(
        ("key_padding_mask", "src_key_padding_mask", "tgt_key_padding_mask", "memory_key_padding_mask"), _NO_PADDING
    ),
    **dict.fromkeys(("padding", "key_padding", "pad"), "`lengths` in the file counts the keys of each item that are no padding; or give `mask`, as (B, 1, 1, Tk)"),
    "padding_mask": "libraries differ: `mask` is true for what may be seen, as (B, 1, 1, Tk); or give `lengths`",
    **dict.fromkeys(("attn_mask", "src_mask", "tgt_mask", "memory_mask"), _MASK),
    **dict.fromkeys(("cu_seqlens", "cu_seqlens_q", "cu_seqlens_k", "cu_seq_lens"), _OFFSETS),
    **dict.fromkeys(("cache_seqlens", "seqlen_offset"), f"{_PAST}; `lengths` counts the keys of each item, new ones too"),
    **dict.fromkeys(("k_cache", "v_cache", "past_key", "past_value", "past_keys", "past_values"), _PAST),
    "dropout_p": "--dropout 0.1, or the choice dropout",
    **dict.fromkeys(("is_causal", "causal", "use_causal_mask"), _CAUSAL),
    **dict.fromkeys(("bias_k", "bias_v", "add_bias_kv"), f"nn.MultiheadAttention's bias_k and bias_v: {_LONE_KEY}"),
    "add_zero_attn": "it is one more key and value of zeros: append them to k and v",
    **dict.fromkeys(("embed_dim", "d_model", "dim_model", "hidden_size", "emb_dim", "n_embd", "d_in", "in_features", "model_dim", "dim", "d_out", "dout", "out_features", "vdim"), _WIDTH),
    **dict.fromkeys(("head_dim", "d_head", "dim_head", "key_dim", "kdim", "d_k"), _HEAD_WIDTH),
    **dict.fromkeys(("qkv_bias", "use_bias"), "--projection linear:bias=qkv draws biases; those you have are the parameters b_q, b_k and b_v"),
    "attention_bias": "numbers that are added to the scores are `bias`; the biases of W_q, W_k and W_v are the parameters b_q, b_k and b_v",
    **dict.fromkeys(("enable_gqa", "n_rep", "num_key_value_groups"), "--kv-heads G: the keys have fewer heads than the queries"),
    **dict.fromkeys(("need_weights", "average_attn_weights", "output_attentions", "return_weights", "return_attn", "return_attention", "return_attention_weights", "return_attention_scores"), _SHOWN),
    **dict.fromkeys(("sbhd", "tbhd", "sbnd", "lbhd"), "exchange the first two axes: (B, T, H, d) is the layout bthd"),
    "batch_first": "arrays are (B, T, d); exchange the first two axes of (T, B, d)",
    **dict.fromkeys(("context_length", "block_size", "max_seq_len", "seq_len", "kv_seq_len", "max_position_embeddings", "batch_size", "num_tokens"), _SIZE),
    **dict.fromkeys(("scale_factor", "scaling_factor", "norm_factor"), "`scale` multiplies the scores: 0.125 where they are divided by 8"),
    "query_pre_attn_scalar": "the scale is 1/√ of it: --scale 0.0625 for 256",
    **dict.fromkeys(("sliding_window", "window_size", "local_window"), "--window LEFT,RIGHT counts the keys beside the query: a window of W keys that ends at the query is --window W−1,0"),
    **dict.fromkeys(("rope_theta", "rotary_base"), "--position rope:theta=10000"),
    **dict.fromkeys(("rotary_dim", "rotary_pct", "partial_rotary_factor"), "--position rope:dims=N turns N columns of each head"),
    **dict.fromkeys(("rope_scaling", "cos", "sin", "freqs_cis", "position_embeddings"), _TURNED),
    **dict.fromkeys(("alibi", "alibi_slopes", "slopes"), "--alibi computes the slopes of the heads"),
    "input_ids": "attn reads vectors, not token ids: attn capture MODEL --text TEXT makes them with a model",
    "context": "`memory` holds the tokens that are attended to; figures of your own go under expected",
}  # fmt: skip


def find_synonym(name: str, known: Iterable[str]) -> str | None:
    """Return the known name for what others call `name`; None where there is none."""
    spelled = {option.lstrip("-").replace("-", "_"): option for option in map(str, known)}
    candidates = (ours.replace("-", "_") for ours in _SYNONYMS.get(_normalize_name(name), ()))
    return next((spelled[ours] for ours in candidates if ours in spelled), None)


def find_way_out(name: str) -> str | None:
    """Return what to do instead with a name that has no counterpart; None where it is not one of these."""
    return _WAYS_OUT.get(_normalize_name(name))


def _normalize_name(name: str) -> str:
    return name.strip().lstrip("-").lower().replace("-", "_").removesuffix(".weight")
