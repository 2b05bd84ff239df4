"""The plain network inside a trained one: branches, norms and path weights in its convolutions."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import cast

import torch
from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgPool
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from nettailor.core.backbone import Backbone
from nettailor.core.deployed import as_deployed
from nettailor.core.layout import Brought, Layout
from nettailor.prune.plain import Graph, Layer, Merged, Resized, Scaled, Step, Sum, Widened
from nettailor.student.exit import Head
from nettailor.student.network import Student
from nettailor.student.proxy import Proxy
from nettailor.student.wiring import Path


def fold(network: Backbone | Student) -> nn.Module:
    """The plain network that computes what a trained one does in eval mode: images to logits.

    Branches are one layer and batch norms are in their convolutions, see `as_deployed`. So is the
    path weight α: of a block in its last convolution where that ends it, of a proxy, an adapter or
    a head likewise; a block that ends in a sum of its own is scaled instead. Proxies of one
    convolution that lead into the same node become one. There is nothing in it to train.

    Args:
        network: of any kind that the project trains; it stays as it was.

    Returns:
        A module from normalised images (B, 3, S, S) to logits (B, classes), on the network's
        device, in eval mode: an `nn.Sequential` where no node is a sum of paths.
    """
    copied, ends = as_deployed(network)
    _pool_by_means(copied)
    steps = _student_steps(copied, ends) if isinstance(copied, Student) else _chain_steps(copied)
    steps = _without_identities(steps)
    names = ["images", *(step.name for step in steps)]
    if all(step.reads == (before,) for before, step in zip(names, steps, strict=False)):
        plain: nn.Module = nn.Sequential(OrderedDict((step.name, step.module) for step in steps))
    else:
        plain = Graph(steps)
    return plain.requires_grad_(False).eval()


def _chain_steps(chain: Backbone) -> list[Step]:
    steps = [Step("stem", ("images",), chain.stem)]
    for number, (block, activation) in enumerate(
        zip(chain.blocks, chain.activations, strict=True), 1
    ):
        steps.append(Step(f"block{number}", (steps[-1].name,), block))
        steps.append(Step(f"act{number}", (steps[-1].name,), activation))
    head = nn.Sequential(OrderedDict(neck=chain.neck, classifier=chain.classifier))
    return [*steps, Step("head", (steps[-1].name,), head)]


def _student_steps(student: Student, ends: dict[nn.Module, nn.Conv2d]) -> list[Step]:
    """The steps of a student whose norms are fused.

    Args:
        ends: the convolution whose output is the output of a block.
    """
    alphas = student.path_weights().tolist()
    steps = [Step("x0", ("images",), student.stem)]
    if student.side:
        resized = Step("resized", ("images",), Resized(student.side))
        steps = [resized, Step("x0", ("resized",), student.stem)]

    def brought(path: Path) -> str:
        """The name of a path's source as it is added at its target, brought there where need be."""
        source, target = student.specs[path.source], student.specs[path.target]
        if source.places == target.places:
            return f"x{path.source}"
        name = f"x{path.source}_by{target.stride // source.stride}"
        if source.layout != target.layout or source.prefix != target.prefix:
            name += f"_{target.layout}{target.prefix or ''}"
        if all(step.name != name for step in steps):
            steps.append(Step(name, (f"x{path.source}",), Brought(source, target)))
        return name

    def terms(path: Path, alpha: float) -> list[tuple[str, nn.Module]]:
        match path.kind:
            case "proxy":
                proxy = cast(Proxy, student.proxies[path.key])
                return [(brought(path), _plain_proxy(proxy, alpha))]
            case "identity":
                target = student.specs[path.target]
                missing = target.channels - student.specs[path.source].channels
                widened = Widened(missing, target.layout) if missing else nn.Identity()
                return [(brought(path), _scaled(widened, alpha))]
            case "block":
                block = student.blocks[path.key]
                if block in ends:
                    _scale(ends[block], alpha)
                else:
                    block = _scaled(block, alpha)
                found = [(f"x{path.source}", block)]
                if path.key in student.adapters:
                    adapter = cast(Proxy, student.adapters[path.key])
                    found.append((brought(path), _plain_proxy(adapter, alpha)))
                return found
            case "head" | "exit":
                head = cast(Head, student.heads[path.key])
                parts = OrderedDict(neck=head.neck, classifier=head.classifier)
                plain: nn.Module = nn.Sequential(parts)
                if isinstance(head.classifier, nn.Linear):
                    _scale(head.classifier, alpha)
                else:
                    plain = _scaled(plain, alpha)
                return [(f"x{path.source}", plain)]

    for node, incoming in enumerate(student.wiring.incoming):
        found = [
            term
            for position in incoming
            for term in terms(
                student.wiring.paths[position], alphas[position] if len(incoming) > 1 else 1.0
            )
        ]
        if not found:
            continue
        proxies = [(name, module) for name, module in found if isinstance(module, Layer)]
        if len(proxies) > 1:
            together = Merged([module for _, module in proxies])
            steps.append(Step(f"proxies{node}", tuple(name for name, _ in proxies), together))
            found = [term for term in found if not isinstance(term[1], Layer)]
            found.append((f"proxies{node}", nn.Identity()))
        sources = tuple(source for source, _ in found)
        modules = [module for _, module in found]
        module = modules[0] if len(modules) == 1 else Sum(modules)
        if node == student.wiring.depth:
            steps.append(Step("logits", sources, module))
            break
        steps.append(Step(f"sum{node}", sources, module))
        steps.append(Step(f"x{node}", (f"sum{node}",), student.activations[str(node)]))
    return steps


def _without_identities(steps: Sequence[Step]) -> list[Step]:
    """The steps that do something; who reads one that does not reads what it reads."""
    stands_for: dict[str, str] = {}
    kept = []
    for step in steps:
        reads = tuple(stands_for.get(name, name) for name in step.reads)
        if isinstance(step.module, nn.Identity):
            stands_for[step.name] = reads[0]
        else:
            kept.append(step._replace(reads=reads))
    return kept


def _plain_proxy(proxy: Proxy, alpha: float) -> nn.Module:
    """A proxy's layers on what is already pooled; its first norm is fused before."""
    fused = fuse_conv_bn_eval(proxy.conv, proxy.norm)
    _scale(fused, alpha)
    last = _plain_layer(fused, proxy.layout)
    if proxy.squeeze is None:
        return last
    squeeze, _, activation = proxy.squeeze
    return nn.Sequential(_plain_layer(cast(nn.Conv2d, squeeze), proxy.layout), activation, last)


def _plain_layer(conv: nn.Conv2d, layout: Layout) -> Layer:
    """A 1×1 convolution, or where the channels come last the linear layer that it is there."""
    if layout == "nchw":
        return conv
    linear = nn.Linear(conv.in_channels, conv.out_channels).to(conv.weight)
    with torch.no_grad():
        linear.weight.copy_(conv.weight.flatten(1))
        linear.bias.copy_(cast(Tensor, conv.bias))
    return linear


def _scaled(module: nn.Module, alpha: float) -> nn.Module:
    return module if alpha == 1 else Scaled(module, alpha)


def _scale(layer: nn.Conv2d | nn.Linear, alpha: float) -> None:
    with torch.no_grad():
        layer.weight.mul_(alpha)
        if layer.bias is not None:
            layer.bias.mul_(alpha)


def _pool_by_means(network: nn.Module) -> None:
    """Write global average pooling as the mean that it is, in place.

    torch takes the pooling apart into a mean and strides for channels last, which ONNX can only say
    with a Gather.
    """
    for name, module in list(network.named_modules(remove_duplicate=False)):
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            network.set_submodule(name, FastAdaptiveAvgPool())
