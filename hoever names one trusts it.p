# attn

`attn` is a command-line calculator for attention, the core operation of transformers. Give it token embeddings as CSV
or JSON, or your own q, k and v. It computes the variant of attention that you choose and shows every step with its
name, its formula and its numbers: scores, softmax weights, context vectors. People get tables; scripts get JSON, exact
to the last digit.

![A terminal: attn compute prints the softmax weights of six tokens under a causal mask, shaded by size, and their context vectors](docs/assets/compute.svg)

## Install

You need Python 3.11 or newer. Install `attn` and see it work:

```sh
python -m pip install -c constraints.txt . && attn demo
```

Run the tests:

```sh
python -m pip install -c constraints.txt '.[dev]' && python -m pytest
```

`constraints.txt` pins the versions that were tested and says how to choose another build of torch.

## Compute attention (`attn compute`)

An input file has one row per token: a label, then its numbers. What `attn` found out about the file is reported on
standard error, so it never mixes with the result.

```console
$ cat sample_inputs/tokens.csv
token,d0,d1,d2,d3
the,1,0,1,0
cat,0,1,1,2
sat,2,1,0,1
$ attn compute sample_inputs/tokens.csv --causal --only weights
sample_inputs/tokens.csv: 3 tokens × 4 dims, header row, token column 'token', separator comma
self-attention · 3 tokens × 4 dims · q = k = v = x · score dot · scale 0.5 = 1/√4 · mask causal · float64
rows = query (looks), columns = key (is looked at)

weights   e^(s − max s) / Σ e^(s − max s)   (every row sums to 1)
query ╲ key    0 the    1 cat    2 sat        Σ
───────────────────────────────────────────────
0 the         1.0000   0.0000   0.0000   1.0000
1 cat         0.0759   0.9241   0.0000   1.0000
2 sat         0.0996   0.1643   0.7361   1.0000
```

Rows are queries and columns are keys: "cat" takes 0.9241 of its context from itself and 0.0759 from "the". It cannot
see "sat", because the mask is causal. Leave `--only` out to see every step.

More: [docs/compute.md](docs/compute.md).

## Follow every multiplication (`attn explain`)

*For learners and teachers.* `attn explain` works out one query on paper: each product, each exponential, why each
hidden key is hidden, and a mark wherever a printed term was rounded.

```console
$ attn explain sample_inputs/cat_sat.json cat --causal | sed -n '/⑥/,/check/p'
⑥ weights   e^(s − max s) / Σ e^(s − max s)   (1 hidden: weight 0)
     largest   3
     the       e^(0.5 − 3) = e^(-2.5) = 0.0821
     cat       e^(3 − 3)   = e^(0)    = 1.0000
     sum       0.0821 + 1      = 1.0821
     the       0.0821 / 1.0821 = 0.0759
     cat       1 / 1.0821      = 0.9241
     check     0.0759 + 0.9241 = 1.0000
```

It also makes worksheets with blanks (`--blank weights,context`) and their answer keys, shows gradients (`--grad ones`),
and writes Markdown or LaTeX.

More: [docs/explain.md](docs/explain.md).

## Check your own figures (`attn check`)

*For engineers.* You have a kernel, a port, or homework, and want to know whether its numbers are right. If they are
wrong, you want to know where, and what was computed instead. Here are weights that somebody computed:

```json title="mine.json"
{"weights": [[0.4223, 0.1554, 0.4223], [0.0064, 0.9465, 0.0471], [0.0171, 0.0466, 0.9362]]}
```

```console
$ attn check sample_inputs/cat_sat.json --figures mine.json; echo "exit $?"
mine.json against sample_inputs/cat_sat.json · self-attention · 3 tokens × 4 dims · q = k = v = x · score dot · scale 0.5 = 1/√4 · no mask · float64
digits: rounded or truncated to what is written (they are written with few digits)

step      shape   max |Δ|   max rel   in ulp   at            mine   reference
─────────────────────────────────────────────────────────────────────────────────
weights   3×3         0.2       0.9     2001   sat → sat   0.9362    0.736125   ✗

weights is the first step that is wrong, all 9 of its figures

your weights are the reference without 1/√d_k (d_k = 4): divide the scores by 2 before the softmax
    the same figures: --scale none and --score kernel:phi=relu

wrong: 9 of 9 figures, in weights
exit 1
```

More: [docs/check.md](docs/check.md).

## Compute in bulk (`attn batch`) and from Python

*For researchers.* `attn batch` computes many inputs, each into its own file. A bad input costs one line, not the run,
and the same command continues where it was stopped. `-j 4` uses four processes; `--scheduler` uses a Dask cluster, and
whoever names one trusts it.

```console
$ attn batch sample_inputs/*.csv --causal --only weights -o results -q; ls results
decimal_comma.json
manifest.ndjson
numbers.json
quoted_bom_crlf.json
tokens.json
tokens_no_header.json
```

The same from Python, with lists, NumPy arrays or tensors:

```python
import attncli

problem = attncli.Problem(q=[[1.0, 0.0]], k=[[1.0, 0.0], [0.0, 1.0]], v=[[1.0], [2.0]])
result = attncli.attend(problem, attncli.Variant(scale=2), keep={"weights", "context"})
print(result["weights"].values.round(4), result["context"].axes)
```

```text
[[0.8808 0.1192]] ('query', 'dim')
```

For scripts, `--json` writes one line in which every step is a key:

```console
$ attn compute sample_inputs/cat_sat.json --json | jq -c '.weights[1]'
[0.0628900132458675,0.7661572065563422,0.17095278019779026]
```

More: [docs/batch.md](docs/batch.md), [docs/python.md](docs/python.md), [docs/scripting.md](docs/scripting.md).

## Choose a variant

Attention is composed of parts: projection, heads, position, score, mask, normaliser and so on. Each part is an option.
Mechanisms and models have names that stand for a list of such options.

```console
$ attn compute sample_inputs/tokens.csv -q --mask 'causal and window:left=1' --softcap 5 --only weights
self-attention · 3 tokens × 4 dims · q = k = v = x · score dot · scale 0.5 = 1/√4 · softcap 5 · mask causal and window:left=1 · float64
rows = query (looks), columns = key (is looked at)

weights   e^(s − max s) / Σ e^(s − max s)   (every row sums to 1)
query ╲ key    0 the    1 cat    2 sat        Σ
───────────────────────────────────────────────
0 the         1.0000   0.0000   0.0000   1.0000
1 cat         0.1009   0.8991   0.0000   1.0000
2 sat         0.0000   0.2264   0.7736   1.0000
$ attn list variants mistral
variants
  mistral  attn compute INPUT --position rope:theta=10000 --mask 'causal and window:left=4095' --heads H --kv-heads G
           RoPE, and a window of 4096 keys (v0.1; later ones have none, and base 1 000 000)
           source: Jiang et al. 2023, §2; transformers 5.23.0 MistralConfig
```

More: [docs/variants.md](docs/variants.md); every part with its formula and source: [docs/catalogue.md](docs/catalogue.md).

## Documentation

| I want to … | read |
|---|---|
| compute attention and choose what is shown | [compute](docs/compute.md) |
| see one query worked out, make a worksheet, see gradients | [explain](docs/explain.md) |
| compare my own figures with the reference | [check](docs/check.md) |
| compute a folder, resume, use a cluster | [batch](docs/batch.md) |
| look up `attn demo`, `attn list`, `attn schema` and the shared options | [reference](docs/reference.md) |
| write an input file, or bring CSV, NumPy, safetensors | [file formats](docs/file-format.md) |
| compose a variant, write a mask | [variants](docs/variants.md) |
| do something specific: cross-attention, KV cache, GQA, PyTorch, marking a class | [recipes](docs/recipes.md) |
| use it from a shell script, with `jq` | [scripting](docs/scripting.md) |
| use it from Python | [Python](docs/python.md) |
| understand an error message or an exit status | [errors](docs/errors.md) |
| know why the numbers can be trusted | [reliability](docs/reliability.md) |
| know what it costs, and compute long sequences | [performance](docs/performance.md) |

`just docs-site` builds these pages as a website. [DESIGN.md](DESIGN.md) explains the code in ten minutes,
[CONTRIBUTING.md](CONTRIBUTING.md) says how to change it, and [CHANGELOG.md](CHANGELOG.md) what has changed.

Licence: [MIT](LICENSE).
