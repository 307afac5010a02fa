"""Compiles kernels to PTX with a given NVRTC: compile.py LIBRARY ARCHITECTURE KERNELS OUT. Called by `cargo xtask ptx`."""

import ctypes
import pathlib
import sys

OPTIONS = ["--std=c++17", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false"]


class Nvrtc:
    def __init__(self, path):
        self.library = ctypes.CDLL(path)
        self.library.nvrtcGetErrorString.restype = ctypes.c_char_p

    def call(self, name, *arguments):
        status = getattr(self.library, name)(*arguments)
        if status != 0:
            raise RuntimeError(f"{name}: {self.library.nvrtcGetErrorString(status).decode()}")

    def text(self, what, program):
        """The log or the PTX."""
        size = ctypes.c_size_t()
        self.call(f"nvrtcGet{what}Size", program, ctypes.byref(size))
        out = ctypes.create_string_buffer(size.value)
        self.call(f"nvrtcGet{what}", program, out)
        return out.value.decode()

    def compile(self, source, headers, options):
        program = ctypes.c_void_p()
        strings = lambda items: (ctypes.c_char_p * len(items))(*[i.encode() for i in items])
        self.call(
            "nvrtcCreateProgram", ctypes.byref(program), source.read_bytes(), source.name.encode(), len(headers),
            strings([h.read_text(encoding="utf-8") for h in headers]), strings([h.name for h in headers]),
        )
        try:
            self.call("nvrtcCompileProgram", program, len(options), strings(options))
        except RuntimeError as error:
            raise RuntimeError(f"{source.name}: {error}\n{self.text('ProgramLog', program)}") from None
        return self.text("PTX", program)


def main(library, architecture, kernels, out):
    nvrtc, kernels, out = Nvrtc(library), pathlib.Path(kernels), pathlib.Path(out)
    headers = sorted(kernels.glob("*.cuh"))
    for source in sorted(kernels.glob("*.cu")):
        ptx = nvrtc.compile(source, headers, [f"--gpu-architecture={architecture}", *OPTIONS])
        (out / source.with_suffix(".ptx").name).write_bytes(ptx.encode())


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except (OSError, RuntimeError) as error:
        sys.exit(f"{error}")
