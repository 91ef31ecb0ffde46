"""AMT-S (Li et al., arXiv:2304.09790): the frame between two others.

Two pyramids of features; flows from the wanted frame to both given ones, coarse to fine, each
corrected by looking up how well the given frames agree where the flow points; three finest flows
whose warped pictures are merged. Names of layers are those of the released weights.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import cache

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, cat, nn
from torch.nn.functional import avg_pool2d, grid_sample, interpolate, pad

from mmrl.models.place import CPU, Place, to_host
from mmrl.models.weights import AMT_S

CHANNELS = (20, 32, 44, 56)
"""Of the four levels of the pyramid, at 1/2 to 1/16 of the picture."""
SKIP, FLOWS = 20, 3
LEVELS, RADIUS = 4, 3
"""Of the correlation pyramid: how many, and how far around a point it is looked up."""
MULTIPLE, SMALLEST = 16, 128
"""Sides of the frames, in pixels; others are padded by repetition."""
Maps = Float[Tensor, "_ _ _ _"]
"""Batch, channels, height, width of any size."""
Middle = Callable[[Float[Tensor, "3 H W"], Float[Tensor, "3 H W"]], Float[Tensor, "3 H W"]]


@cache
def amt_s(place: Place = CPU) -> Middle:
    """The frame halfway between two, RGB in [0, 1]; one model a process."""
    model = Amt()
    # the one name in the file that torch does not know as harmless: a mapping's
    with torch.serialization.safe_globals([(OrderedDict, "typing.OrderedDict")]):
        stored = torch.load(AMT_S.path(), map_location="cpu", weights_only=True)
    model.load_state_dict(stored["state_dict"], strict=True)
    return middle_by(model, place)


def middle_by(model: nn.Module, place: Place) -> Middle:
    """What a model of this class draws at `place`, between frames of any size."""
    model = place.holds(model)

    @torch.no_grad()
    def middle(first: Float[Tensor, "3 H W"], second: Float[Tensor, "3 H W"]) -> Tensor:
        height, width = first.shape[-2:]
        edges = [*_margins(width), *_margins(height)]
        frames = [place.floats(frame[None]) for frame in (first, second)]
        given = [pad(frame, edges, mode="replicate") for frame in frames]
        left, _, top, _ = edges
        return to_host(model(*given)[0, :, top : top + height, left : left + width])

    return middle


def _margins(side: int) -> tuple[int, int]:
    """Pixels to add before and after, up to what the model reads."""
    lack = max(SMALLEST, math.ceil(side / MULTIPLE) * MULTIPLE) - side
    return lack // 2, lack - lack // 2


def resize(maps: Maps, scale: float) -> Maps:
    """Bilinear, corners not aligned."""
    return interpolate(maps, scale_factor=scale, mode="bilinear", align_corners=False)


def warp(maps: Maps, flow: Float[Tensor, "_ 2 _ _"]) -> Maps:
    """`maps` read at each pixel plus its flow (x, y), the border repeated beyond."""
    height, width = flow.shape[-2:]
    half = flow.new_tensor([(width - 1) / 2, (height - 1) / 2])
    sides = (torch.linspace(-1, 1, n, device=flow.device) for n in (height, width))
    y, x = torch.meshgrid(*sides, indexing="ij")
    places = torch.stack([x, y], -1) + rearrange(flow, "b c h w -> b h w c") / half
    return grid_sample(maps, places, padding_mode="border", align_corners=True)


def conv_prelu(inside: int, outside: int, stride: int = 1) -> nn.Sequential:
    """3 x 3 and a PReLU a channel."""
    return nn.Sequential(nn.Conv2d(inside, outside, 3, stride, 1), nn.PReLU(outside))


class Side(nn.Module):
    """A residual block whose last `SKIP` channels pass two convolutions of their own."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = conv_prelu(width, width), conv_prelu(SKIP, SKIP)
        self.conv3, self.conv4 = conv_prelu(width, width), conv_prelu(SKIP, SKIP)
        self.conv5, self.prelu = nn.Conv2d(width, width, 3, 1, 1), nn.PReLU(width)

    def forward(self, x: Maps) -> Maps:
        out = self.conv1(x)
        out = self.conv3(cat([out[:, :-SKIP], self.conv2(out[:, -SKIP:])], 1))
        out = self.conv5(cat([out[:, :-SKIP], self.conv4(out[:, -SKIP:])], 1))
        return self.prelu(x + out)


class Decoder(nn.Module):
    """Maps of one level to those of the next finer one."""

    def __init__(self, inside: int, width: int, outside: int) -> None:
        super().__init__()
        up = nn.ConvTranspose2d(width, outside, 4, 2, 1)
        self.convblock = nn.Sequential(conv_prelu(inside, width), Side(width), up)

    def forward(self, *maps: Maps) -> Maps:
        return self.convblock(cat(maps, 1))


class Pyramid(nn.Module):
    """Features of one picture at four sizes."""

    def __init__(self) -> None:
        super().__init__()
        for level, (inside, outside) in enumerate(zip((3, *CHANNELS), CHANNELS, strict=False), 1):
            pair = nn.Sequential(conv_prelu(inside, outside, 2), conv_prelu(outside, outside))
            self.register_module(f"pyramid{level}", pair)

    def forward(self, x: Maps) -> list[Maps]:
        found = []
        for level in self.children():
            x = level(x)
            found.append(x)
        return found


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3, 1 x 1 with instance norms, beside a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        narrow = outside // 4
        self.conv1 = nn.Conv2d(inside, narrow, 1)
        self.conv2 = nn.Conv2d(narrow, narrow, 3, stride, 1)
        self.conv3 = nn.Conv2d(narrow, outside, 1)
        self.norms = [nn.InstanceNorm2d(width) for width in (narrow, narrow, outside)]
        shortcut = nn.Conv2d(inside, outside, 1, stride), nn.InstanceNorm2d(outside)
        self.downsample = nn.Sequential(*shortcut) if stride > 1 else nn.Identity()

    def forward(self, x: Maps) -> Maps:
        out = x
        for conv, norm in zip((self.conv1, self.conv2, self.conv3), self.norms, strict=True):
            out = norm(conv(out)).relu()
        return (self.downsample(x) + out).relu()


class Matching(nn.Module):
    """Features at 1/8 that are compared between the two frames."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.norm1 = nn.Conv2d(3, 32, 7, 2, 3), nn.InstanceNorm2d(32)
        self.layer1 = nn.Sequential(Bottleneck(32, 32, 1), Bottleneck(32, 32, 1))
        self.layer2 = nn.Sequential(Bottleneck(32, 64, 2), Bottleneck(64, 64, 1))
        self.layer3 = nn.Sequential(Bottleneck(64, 96, 2), Bottleneck(96, 96, 1))
        self.conv2 = nn.Conv2d(96, 84, 1)

    def forward(self, x: Maps) -> Maps:
        x = self.norm1(self.conv1(x)).relu()
        return self.conv2(self.layer3(self.layer2(self.layer1(x))))


class Update(nn.Module):
    """Corrections of features and flows from the correlation, worked out at 1/8."""

    def __init__(self, width: int, scale: int) -> None:
        super().__init__()
        self.scale = scale
        self.convc1 = nn.Conv2d(2 * LEVELS * (2 * RADIUS + 1) ** 2, 64, 1)
        self.convf1, self.convf2 = nn.Conv2d(4, 40, 7, padding=3), nn.Conv2d(40, 20, 3, padding=1)
        self.conv = nn.Conv2d(84, 68, 3, padding=1)
        self.gru = self._two(68 + 4 + width, 76)
        self.feat_head, self.flow_head = self._two(76, width), self._two(76, 4)
        self.leaky = nn.LeakyReLU(0.1)

    @staticmethod
    def _two(inside: int, outside: int) -> nn.Sequential:
        first, second = nn.Conv2d(inside, 76, 3, 1, 1), nn.Conv2d(76, outside, 3, 1, 1)
        return nn.Sequential(first, nn.LeakyReLU(0.1), second)

    def forward(self, features: Maps, flows: Maps, correlation: Maps) -> tuple[Maps, Maps]:
        if self.scale > 1:
            features = resize(features, 1 / self.scale)
        seen = self.leaky(self.convc1(correlation))
        moved = self.leaky(self.convf2(self.leaky(self.convf1(flows))))
        inside = self.leaky(self.conv(cat([seen, moved], 1)))
        state = self.gru(cat([inside, flows, features], 1))
        better, further = self.feat_head(state), self.flow_head(state)
        if self.scale > 1:
            better, further = resize(better, self.scale), self.scale * resize(further, self.scale)
        return better, further


class Amt(nn.Module):
    """Two frames in, the one halfway out; sides are multiples of 16."""

    def __init__(self) -> None:
        super().__init__()
        c1, c2, c3, c4 = CHANNELS
        self.feat_encoder, self.encoder = Matching(), Pyramid()
        self.decoder4 = Decoder(2 * c4 + 1, 2 * c4, c3 + 4)
        self.decoder3 = Decoder(3 * c3 + 4, 3 * c3, c2 + 4)
        self.decoder2 = Decoder(3 * c2 + 4, 3 * c2, c1 + 4)
        self.decoder1 = Decoder(3 * c1 + 4, 3 * c1, 8 * FLOWS)
        self.update4, self.update3, self.update2 = Update(c3, 1), Update(c2, 2), Update(c1, 4)
        merge = nn.Conv2d(3 * FLOWS, 6 * FLOWS, 3, 1, 1), nn.Conv2d(6 * FLOWS, 3, 3, 1, 1)
        self.comb_block = nn.Sequential(merge[0], nn.PReLU(6 * FLOWS), merge[1])

    def forward(self, first: Maps, second: Maps) -> Maps:
        mean = cat([first, second], 2).mean((1, 2, 3), keepdim=True)
        frames = (first - mean, second - mean)
        lookup = Lookup(*(self.feat_encoder(frame) for frame in frames))
        one, two = (self.encoder(frame) for frame in frames)
        half = torch.full_like(one[3][:, :1], 0.5)
        flows, features = self.decoder4(one[3], two[3], half).split([4, CHANNELS[2]], 1)
        flows, features = self._corrected(self.update4, flows, features, lookup)
        for level, decoder, update in (
            (2, self.decoder3, self.update3),
            (1, self.decoder2, self.update2),
        ):
            out = decoder(features, *warped(one[level], two[level], flows), flows)
            flows = out[:, :4] + 2 * resize(flows, 2)
            flows, features = self._corrected(update, flows, out[:, 4:], lookup)
        out = self.decoder1(features, *warped(one[0], two[0], flows), flows)
        return self._merged(out, 2 * resize(flows, 2), frames, mean).clamp(0, 1)

    def _corrected(
        self, update: Update, flows: Maps, features: Maps, lookup: Lookup
    ) -> tuple[Maps, Maps]:
        coarse = flows if update.scale == 1 else resize(flows, 1 / update.scale) / update.scale
        better, further = update(features, coarse, lookup(coarse))
        return flows + further, features + better

    def _merged(self, out: Maps, coarse: Maps, frames: Sequence[Maps], mean: Maps) -> Maps:
        """Mean of the three warped pictures, and what the last block adds to it."""
        sizes = [2 * FLOWS, 2 * FLOWS, FLOWS, 3 * FLOWS]
        back, forth, mask, rest = (
            rearrange(part, "b (n c) h w -> n b c h w", n=FLOWS) for part in out.split(sizes, 1)
        )
        pictures = []
        for number in range(FLOWS):
            share = mask[number].sigmoid()
            from_first = warp(frames[0], back[number] + coarse[:, :2])
            from_second = warp(frames[1], forth[number] + coarse[:, 2:])
            both = share * from_first + (1 - share) * from_second
            pictures.append(both + mean + rest[number])
        return torch.stack(pictures).mean(0) + self.comb_block(cat(pictures, 1))


def warped(one: Maps, two: Maps, flows: Maps) -> tuple[Maps, Maps]:
    """Features of both frames where the flows point."""
    return warp(one, flows[:, :2]), warp(two, flows[:, 2:])


class Lookup:
    """Agreement of every point of one frame with every point of the other, at four sizes."""

    def __init__(self, one: Maps, two: Maps) -> None:
        self.size = one.shape[-2:]
        height, width = self.size
        both = torch.einsum("bcij,bckl->bijkl", one, two) / math.sqrt(one.shape[1])
        there = rearrange(both, "b i j k l -> (b i j) 1 k l")
        back = rearrange(both, "b i j k l -> (b k l) 1 i j")
        self.pyramids = [[there], [back]]
        for pyramid in self.pyramids:
            for _ in range(LEVELS - 1):
                pyramid.append(avg_pool2d(pyramid[-1], 2, 2))
        sides = (torch.arange(n, device=one.device) for n in (height, width))
        y, x = torch.meshgrid(*sides, indexing="ij")
        self.grid = torch.stack([x, y]).float()

    def __call__(self, flows: Maps) -> Maps:
        """Around where each point lies in the other frame: twice the flow from halfway."""
        back, forth = flows[:, :2], flows[:, 2:]
        places = (self.grid + 2 * forth, self.grid + 2 * back)
        found = [
            self._around(maps, place, level)
            for pyramid, place in zip(self.pyramids, places, strict=True)
            for level, maps in enumerate(pyramid)
        ]
        return cat(found, 1)

    def _around(self, maps: Maps, places: Float[Tensor, "_ 2 _ _"], level: int) -> Maps:
        steps = torch.arange(-RADIUS, RADIUS + 1, device=maps.device).float()
        window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), -1)
        centers = rearrange(places, "b c h w -> (b h w) 1 1 c") / 2**level
        half = maps.new_tensor([maps.shape[-1] - 1, maps.shape[-2] - 1]) / 2
        found = grid_sample(maps, (centers + window) / half - 1, align_corners=True)
        height, width = self.size
        return rearrange(found, "(b h w) 1 y x -> b (y x) h w", h=height, w=width)
