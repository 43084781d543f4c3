"""What other libraries, books and papers call things that `attn` knows by another name. Entry: `find_synonym`."""

from __future__ import annotations

from collections.abc import Iterable

# Other names → ours, the likeliest first; a name of ours is offered only where it can stand.
_SYNONYMS: dict[str, tuple[str, ...]] = {
    # fields
    **dict.fromkeys(("x", "input", "inputs", "vectors", "token_embeddings", "hidden_states", "data"), ("embeddings",)),
    **dict.fromkeys(("vector", "emb"), ("embedding", "embeddings")),
    **dict.fromkeys(("words", "labels", "words_or_tokens", "sentence"), ("tokens",)),
    **dict.fromkeys(("query", "queries", "query_states"), ("q",)),
    **dict.fromkeys(("key", "keys", "key_states"), ("k",)),
    **dict.fromkeys(("value", "values", "value_states"), ("v",)),
    **dict.fromkeys(("attn_mask", "attention_mask"), ("mask",)),
    **dict.fromkeys(("attn_bias", "position_bias", "score_bias"), ("bias",)),
    **dict.fromkeys(("position_ids", "pos", "pos_ids"), ("positions",)),
    **dict.fromkeys(("seq_lens", "seqlens", "seqused_k", "context_lens", "nonpad_kv_seqlen"), ("lengths",)),
    **dict.fromkeys(("kv_cache", "past_key_value", "past_key_values", "cache"), ("past",)),
    **dict.fromkeys(("encoder_hidden_states", "encoder_outputs", "context_embeddings"), ("memory",)),
    # learned arrays
    **dict.fromkeys(("w_query", "wq", "query_weight", "q_proj", "q_proj_weight", "w_qs"), ("w_q",)),
    **dict.fromkeys(("w_key", "wk", "key_weight", "k_proj", "k_proj_weight", "w_ks"), ("w_k",)),
    **dict.fromkeys(("w_value", "wv", "value_weight", "v_proj", "v_proj_weight", "w_vs"), ("w_v",)),
    **dict.fromkeys(("w_out", "wo", "o_proj", "out_proj", "out_proj_weight", "w_output"), ("w_o",)),
    # steps
    **dict.fromkeys(("attention_weights", "attn_weights", "attention", "attn", "probs", "attention_probs"), ("weights",)),
    **dict.fromkeys(("attention_scores", "attn_scores", "logits", "energy"), ("scores",)),
    **dict.fromkeys(("attention_output", "attn_output", "context_vector", "context_vectors", "context_vec"), ("context",)),
    **dict.fromkeys(("lse", "logsumexp", "softmax_lse"), ("log_sum_exp",)),
    # options of parts, and choices
    **dict.fromkeys(("d_out", "out_features", "d_k", "hidden"), ("dim",)),
    **dict.fromkeys(("num_heads", "n_heads", "n_head", "nhead", "num_attention_heads"), ("heads",)),
    **dict.fromkeys(("num_kv_heads", "n_kv_heads", "num_key_value_heads"), ("kv_heads",)),
    **dict.fromkeys(("logit_softcapping", "attn_logit_softcapping", "logit_cap"), ("softcap",)),
    **dict.fromkeys(("sliding_window", "local"), ("window",)),
    **dict.fromkeys(("none", "no_mask", "unmasked"), ("full",)),
    **dict.fromkeys(("is_causal", "triu", "tril", "lower_triangular", "autoregressive", "look_ahead"), ("causal",)),
    **dict.fromkeys(("mha", "multihead", "multi_head", "multi_head_attention"), ("multi-head", "torch-mha")),
    **dict.fromkeys(("multiheadattention", "nn.multiheadattention", "torch.nn.multiheadattention"), ("torch-mha", "multi-head")),
    **dict.fromkeys(("layernorm", "layer_norm"), ("layer",)),
    **dict.fromkeys(("rmsnorm", "rms_norm"), ("rms",)),
    **dict.fromkeys(("bahdanau", "tanh"), ("additive",)),
    **dict.fromkeys(("scaled_dot", "dot_product", "scaled_dot_product"), ("dot",)),
    **dict.fromkeys(("rotary", "rotary_embedding"), ("rope",)),
    **dict.fromkeys(("theta_base", "base", "rope_theta"), ("theta",)),
}  # fmt: skip
# Names that have no counterpart: what to do instead.
_WAYS_OUT: dict[str, str] = {
    "key_padding_mask": "there true means padding; here `mask` is true for what may be seen: give its opposite, as (B, 1, 1, Tk), or `lengths`",
    "cu_seqlens": "`segments` numbers the document of each token, as in [0, 0, 1], with --mask document",
    "dropout_p": "--dropout 0.1, or the choice dropout",
    "is_causal": '"variant": {"mask": "causal"}, or --causal',
    "causal": '"variant": {"mask": "causal"}, or --causal',
}


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
