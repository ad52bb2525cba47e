"""The two-way transformer of SAM's mask decoder.

Source: Kirillov et al. 2023, "Segment Anything", section 3 and appendix A. Parameter names are
the official ones, so that published checkpoints load strictly.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from ..linear import PointwiseLinear


class Attention(nn.Module):
    """Multi-head attention whose inner width may be smaller than that of the embedding.

    Args:
        embedding_dim: Width of queries, keys, values and output.
        num_heads: Number of heads; must divide the inner width.
        downsample_rate: The inner width is ``embedding_dim // downsample_rate``.
    """

    def __init__(self, *, embedding_dim: int, num_heads: int, downsample_rate: int = 1) -> None:
        super().__init__()
        internal_dim = embedding_dim // downsample_rate
        if internal_dim % num_heads:
            raise ValueError(
                f"num_heads must divide the inner width, got {num_heads} heads "
                f"for width {internal_dim}"
            )
        self.num_heads = num_heads
        self.q_proj = PointwiseLinear(embedding_dim, internal_dim)
        self.k_proj = PointwiseLinear(embedding_dim, internal_dim)
        self.v_proj = PointwiseLinear(embedding_dim, internal_dim)
        self.out_proj = PointwiseLinear(internal_dim, embedding_dim)

    def _split_heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)  # (B, heads, N, c)

    def forward(self, *, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        """Attend from ``q`` (B, Nq, C) to ``k`` and ``v`` (B, Nk, C); returns (B, Nq, C).

        What is the same for the whole batch may be given once, as (1, N, C), and is projected once.
        """
        heads = [
            self._split_heads(project(x))
            for project, x in ((self.q_proj, q), (self.k_proj, k), (self.v_proj, v))
        ]
        if q.shape[0] != k.shape[0]:
            count = max(q.shape[0], k.shape[0])
            heads = [x.expand(count, -1, -1, -1) for x in heads]
        out = F.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        return self.out_proj(out.transpose(1, 2).flatten(2))


class MLPBlock(nn.Module):
    """Two linear layers with an activation in between."""

    def __init__(self, *, embedding_dim: int, mlp_dim: int, act: type[nn.Module] = nn.GELU) -> None:
        super().__init__()
        self.lin1 = PointwiseLinear(embedding_dim, mlp_dim)
        self.lin2 = PointwiseLinear(mlp_dim, embedding_dim)
        self.act = act()

    def forward(self, x: Tensor) -> Tensor:
        """Map (..., C) to (..., C)."""
        return self.lin2(self.act(self.lin1(x)))


class TwoWayAttentionBlock(nn.Module):
    """Token self-attention, tokens -> image, MLP on tokens, image -> tokens.

    Args:
        embedding_dim: Width of tokens and of the image embedding.
        num_heads: Attention heads.
        mlp_dim: Inner width of the MLP.
        attention_downsample_rate: Reduction of the inner width of the two cross-attentions.
        skip_first_layer_pe: Set in the first block, whose queries are the position encodings
            themselves: its self-attention adds none and replaces the queries.
    """

    def __init__(
        self,
        *,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        attention_downsample_rate: int = 2,
        skip_first_layer_pe: bool = False,
    ) -> None:
        super().__init__()
        self.self_attn = Attention(embedding_dim=embedding_dim, num_heads=num_heads)
        self.norm1 = nn.LayerNorm(embedding_dim)
        self.cross_attn_token_to_image = Attention(
            embedding_dim=embedding_dim,
            num_heads=num_heads,
            downsample_rate=attention_downsample_rate,
        )
        self.norm2 = nn.LayerNorm(embedding_dim)
        self.mlp = MLPBlock(embedding_dim=embedding_dim, mlp_dim=mlp_dim, act=nn.ReLU)
        self.norm3 = nn.LayerNorm(embedding_dim)
        self.norm4 = nn.LayerNorm(embedding_dim)
        self.cross_attn_image_to_token = Attention(
            embedding_dim=embedding_dim,
            num_heads=num_heads,
            downsample_rate=attention_downsample_rate,
        )
        self.skip_first_layer_pe = skip_first_layer_pe

    def forward(
        self, *, queries: Tensor, keys: Tensor, query_pe: Tensor, key_pe: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Update tokens and image together.

        Args:
            queries: Tokens (B, N, C).
            keys: Image embedding, flattened (B or 1, HW, C).
            query_pe: Position encodings of the tokens (B, N, C).
            key_pe: Position encodings of the image (B or 1, HW, C).

        Returns:
            The updated queries (B, N, C) and keys (B, HW, C).
        """
        if self.skip_first_layer_pe:
            queries = self.self_attn(q=queries, k=queries, v=queries)
        else:
            q = queries + query_pe
            queries = queries + self.self_attn(q=q, k=q, v=queries)
        queries = self.norm1(queries)

        k = keys + key_pe
        attended = self.cross_attn_token_to_image(q=queries + query_pe, k=k, v=keys)
        queries = self.norm2(queries + attended)
        queries = self.norm3(queries + self.mlp(queries))

        attended = self.cross_attn_image_to_token(q=k, k=queries + query_pe, v=queries)
        keys = self.norm4(keys + attended)
        return queries, keys


class TwoWayTransformer(nn.Module):
    """A stack of two-way blocks and a final attention from tokens to image.

    Args:
        depth: Number of blocks.
        embedding_dim: Width of tokens and image embedding.
        num_heads: Attention heads.
        mlp_dim: Inner width of the MLPs.
        attention_downsample_rate: Reduction of the inner width of the cross-attentions.
    """

    def __init__(
        self,
        *,
        depth: int,
        embedding_dim: int,
        num_heads: int,
        mlp_dim: int,
        attention_downsample_rate: int = 2,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TwoWayAttentionBlock(
                embedding_dim=embedding_dim,
                num_heads=num_heads,
                mlp_dim=mlp_dim,
                attention_downsample_rate=attention_downsample_rate,
                skip_first_layer_pe=index == 0,
            )
            for index in range(depth)
        )
        self.final_attn_token_to_image = Attention(
            embedding_dim=embedding_dim,
            num_heads=num_heads,
            downsample_rate=attention_downsample_rate,
        )
        self.norm_final_attn = nn.LayerNorm(embedding_dim)

    def forward(
        self, image_embedding: Tensor, image_pe: Tensor, point_embedding: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Run the transformer.

        Args:
            image_embedding: (B, C, H, W), or (1, C, H, W) if it is the same for all.
            image_pe: Position encoding of the image grid, (B or 1, C, H, W).
            point_embedding: Tokens (B, N, C), which also serve as their position encodings.

        Returns:
            Tokens (B, N, C) and image embedding, flattened, (B, HW, C).
        """
        keys = image_embedding.flatten(2).transpose(1, 2)
        key_pe = image_pe.flatten(2).transpose(1, 2)
        queries = point_embedding
        for layer in self.layers:
            queries, keys = layer(
                queries=queries, keys=keys, query_pe=point_embedding, key_pe=key_pe
            )
        attended = self.final_attn_token_to_image(
            q=queries + point_embedding, k=keys + key_pe, v=keys
        )
        return self.norm_final_attn(queries + attended), keys
