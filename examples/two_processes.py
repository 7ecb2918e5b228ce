# Copyright 2026 dynsplit_ros developers
# SPDX-License-Identifier: Apache-2.0
"""
A model split over two plain processes, without ROS: the codec's bytes go over a socket, and nothing is pickled.

Run ``./run exec python examples/two_processes.py edge`` in one terminal; it prints a port. Run the same with
``robot PORT`` in another: each image is split elsewhere, and each answer compared with the whole model's, bit for bit.
"""

from multiprocessing.connection import Client, Connection, Listener
import sys

import torch

from dynsplit_ros import decode, encode, EncodedTensor, load_model, SplitModel, TensorSpec


def send(link: Connection, tensors: dict[str, torch.Tensor]) -> None:
    for tensor in encode('blosc2', tensors):
        link.send_bytes(tensor.data)


def receive(link: Connection, specs: tuple[TensorSpec, ...]) -> dict[str, torch.Tensor]:
    # Both sides know names, types and shapes from the model; no message may be much longer than its tensor.
    return decode(
        'blosc2',
        [EncodedTensor(spec.name, spec.dtype, spec.shape, link.recv_bytes(2 * spec.nbytes + 4096)) for spec in specs],
        specs,
    )


if sys.argv[1:] != ['edge'] and not (len(sys.argv) == 3 and sys.argv[1] == 'robot' and sys.argv[2].isdigit()):
    sys.exit(__doc__.strip())
split = SplitModel(load_model('mobilenet_v2', weights='none', input_size=(96, 96)))
if sys.argv[1] == 'edge':
    with Listener(('localhost', 0)) as listener:
        print(listener.address[1], flush=True)
        with listener.accept() as link:
            for cut in split.cuts[:-1]:  # all but the last, which sends nothing
                send(link, split.tail(cut)(receive(link, cut.tensors)))
else:
    with Client(('localhost', int(sys.argv[2]))) as link:
        for cut in split.cuts[:-1]:
            image = torch.randint(0, 256, (1, 3, *split.model.input_size), dtype=torch.uint8)
            send(link, split.head(cut)(image))
            outputs, whole = receive(link, split.output_specs or ()), split.whole(image)
            same = all(torch.equal(outputs[name], whole[name]) for name in whole)
            print(f'split {cut.index} at {cut.name}: {"the same, bit for bit" if same else "NOT the same"}')
