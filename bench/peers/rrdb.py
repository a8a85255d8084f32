"""The network of ESRGAN as BasicSR writes it, under its names: what eager.py and the engines that start from it run."""
import os

import torch
from torch import nn
from torch.nn import functional


class Dense(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        for k in range(5):
            self.add_module(f"conv{k + 1}", nn.Conv2d(features + k * growth, growth if k < 4 else features, 3, padding=1))

    def forward(self, x):
        made = [x]
        for k in range(4):
            made.append(functional.leaky_relu(getattr(self, f"conv{k + 1}")(torch.cat(made, 1)), 0.2, inplace=True))
        return self.conv5(torch.cat(made, 1)) * 0.2 + x


class Block(nn.Module):
    def __init__(self, features, growth):
        super().__init__()
        self.rdb1, self.rdb2, self.rdb3 = (Dense(features, growth) for _ in range(3))

    def forward(self, x):
        return self.rdb3(self.rdb2(self.rdb1(x))) * 0.2 + x


class RRDBNet(nn.Module):
    def __init__(self, features=64, growth=32, blocks=23):
        super().__init__()
        def conv(i, o): return nn.Conv2d(i, o, 3, padding=1)
        self.conv_first, self.conv_body = conv(3, features), conv(features, features)
        self.body = nn.Sequential(*(Block(features, growth) for _ in range(blocks)))
        self.conv_up1, self.conv_up2, self.conv_hr, self.conv_last = conv(features, features), conv(features, features), conv(features, features), conv(features, 3)

    def forward(self, x):
        first = self.conv_first(x)
        h = first + self.conv_body(self.body(first))
        for up in (self.conv_up1, self.conv_up2):
            h = functional.leaky_relu(up(functional.interpolate(h, scale_factor=2, mode="nearest")), 0.2, inplace=True)
        return self.conv_last(functional.leaky_relu(self.conv_hr(h), 0.2, inplace=True))


def load(model, dtype):
    from safetensors.torch import load_file
    with torch.device("meta"):
        network = RRDBNet()
    stored = load_file(os.path.join(model, "diffusion_pytorch_model.safetensors"))
    network.load_state_dict({name: tensor.to(dtype) for name, tensor in stored.items()}, assign=True)
    return network
