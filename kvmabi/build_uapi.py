# SPDX-License-Identifier: MIT
"""Turns the C headers in include/ into the modules _uapi_macros and _uapi_cffi, when the package is built.

cffi reads structs but no macros. So pcpp expands each macro, pycparser parses what comes out, and
the C expression becomes a number or a Python function, with C's integer types kept in mind.
"""

from __future__ import annotations

import io
import operator
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import cffi
from pcpp import Preprocessor
from pcpp.preprocessor import Action, OutputDirective
from pycparser import c_ast, c_parser

MACROS_MODULE = "_uapi_macros"
CFFI_MODULE = "_uapi_cffi"

# What the system headers that ours include contribute: fixed-width types and the generic ioctl encoding.
_PRELUDE = """\
typedef uint8_t __u8;
typedef uint16_t __u16;
typedef uint32_t __u32;
typedef uint64_t __u64;
typedef int16_t __s16;
typedef int32_t __s32;
#define __extension__
#define _IOC(dir, type, nr, size) (((dir) << 30) | ((size) << 16) | ((type) << 8) | (nr))
#define _IO(type, nr) _IOC(0U, type, nr, 0)
#define _IOW(type, nr, arg) _IOC(1U, type, nr, sizeof(arg))
#define _IOR(type, nr, arg) _IOC(2U, type, nr, sizeof(arg))
#define _IOWR(type, nr, arg) _IOC(3U, type, nr, sizeof(arg))
"""

_COMPARISONS: dict[str, Callable[[int, int], bool]] = {
    "==": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Untranslatable(Exception):
    """The macro means nothing by itself: it pastes tokens or needs a name that the headers do not define."""


class CType(NamedTuple):
    """An integer type of C after promotion."""

    bits: int
    signed: bool

    @property
    def low(self) -> int:
        return -(1 << (self.bits - 1)) if self.signed else 0

    @property
    def high(self) -> int:
        return (1 << (self.bits - self.signed)) - 1


INT, UINT, LONG, ULONG = CType(32, True), CType(32, False), CType(64, True), CType(64, False)

_NAMED_TYPES = {
    "int": INT,
    "unsigned int": UINT,
    "unsigned": UINT,
    "long": LONG,
    "unsigned long": ULONG,
    "__u32": UINT,
    "__s32": INT,
    "__u64": ULONG,
}


class Expr(NamedTuple):
    """A translated expression: Python source, its C type, and the least and greatest value it can have."""

    source: str
    type: CType
    low: int
    high: int

    @property
    def constant(self) -> bool:
        return self.low == self.high


def _number(value: int, ctype: CType) -> Expr:
    return Expr(str(value) if -1 < value < 10 else hex(value), ctype, value, value)


def _fit(expr: Expr) -> Expr:
    """The value as its type holds it: unsigned types wrap."""
    ctype = expr.type
    if ctype.low <= expr.low and expr.high <= ctype.high:
        return _number(expr.low, ctype) if expr.constant else expr
    if ctype.signed:
        raise Untranslatable(f"signed overflow in {expr.source}")
    if expr.constant:
        return _number(expr.low & ctype.high, ctype)
    return Expr(f"({expr.source} & {ctype.high:#x})", ctype, 0, ctype.high)


def _common(left: CType, right: CType) -> CType:
    """C's usual arithmetic conversions."""
    bits = max(left.bits, right.bits)
    return CType(bits, all(t.signed for t in (left, right) if t.bits == bits))


def _all_ones(value: int) -> int:
    return (1 << value.bit_length()) - 1


def _bounds(op: str, a: Expr, b: Expr) -> tuple[int, int]:
    """Least and greatest value of a op b."""
    if op == "+":
        return a.low + b.low, a.high + b.high
    if op == "-":
        return a.low - b.high, a.high - b.low
    if a.low < 0 or b.low < 0:
        raise Untranslatable(f"negative operand of {op}")
    ends: dict[str, Callable[[], tuple[int, int]]] = {
        "*": lambda: (a.low * b.low, a.high * b.high),
        "//": lambda: (a.low // b.high, a.high // max(b.low, 1)),
        "%": lambda: (a.low % b.high, a.high % b.high) if a.constant and b.constant else (0, b.high - 1),
        "&": lambda: (a.low & b.low, a.high & b.high) if a.constant and b.constant else (0, min(a.high, b.high)),
        "|": lambda: (a.low | b.low, a.high | b.high if a.constant and b.constant else _all_ones(a.high | b.high)),
        "^": lambda: (a.low ^ b.low, a.high ^ b.high) if a.constant and b.constant else (0, _all_ones(a.high | b.high)),
        "<<": lambda: (a.low << b.low, a.high << b.high),
        ">>": lambda: (a.low >> b.high, a.high >> b.low),
    }
    return ends[op]()


class Translator:
    """Translates C expressions, given the enumerators and struct sizes of the headers."""

    def __init__(self, enumerators: dict[str, int], sizeof: Callable[[str], int]) -> None:
        self.enumerators = enumerators
        self.sizeof = sizeof
        self._parser = c_parser.CParser()

    def translate(self, expression: str, parameters: tuple[str, ...] = ()) -> Expr:
        """The expression in Python; parameters are taken as __u64."""
        try:
            tree = self._parser.parse(f"typedef int __u32, __u64; int _ = ({expression});")
        except c_parser.ParseError as error:
            raise Untranslatable(str(error)) from error
        return self._expr(tree.ext[-1].init, frozenset(parameters))

    def _expr(self, node: Any, names: frozenset[str]) -> Expr:
        translated: Expr = getattr(self, f"_{type(node).__name__}", self._unknown)(node, names)
        return _fit(translated)

    def _unknown(self, node: Any, names: frozenset[str]) -> Expr:
        raise Untranslatable(type(node).__name__)

    def _Constant(self, node: Any, names: frozenset[str]) -> Expr:
        match = re.fullmatch(r"(0[xX][0-9a-fA-F]+|\d+)([uUlL]*)", node.value)
        if not match:
            raise Untranslatable(node.value)
        digits, suffix = match[1], match[2].lower()
        value = int(digits, 8 if re.fullmatch(r"0\d+", digits) else 0)
        types = [INT, UINT, LONG, ULONG] if digits[:2].lower() == "0x" else [INT, LONG]
        if "u" in suffix:
            types = [UINT, ULONG]
        return _number(value, next(t for t in types if value <= t.high and (t.bits == 64 or "l" not in suffix)))

    def _ID(self, node: Any, names: frozenset[str]) -> Expr:
        if node.name in names:
            return Expr(f"({node.name} & {ULONG.high:#x})", ULONG, 0, ULONG.high)
        if node.name in self.enumerators:
            return _number(self.enumerators[node.name], INT)
        raise Untranslatable(f"{node.name} is not defined")

    def _UnaryOp(self, node: Any, names: frozenset[str]) -> Expr:
        if node.op == "sizeof":
            return _number(self.sizeof(_type_name(node.expr)), ULONG)
        operand = self._expr(node.expr, names)
        match node.op:
            case "+":
                return operand
            case "-":
                return Expr(f"(-{operand.source})", operand.type, -operand.high, -operand.low)
            case "~":
                return Expr(f"(~{operand.source})", operand.type, ~operand.high, ~operand.low)
        raise Untranslatable(node.op)

    def _BinaryOp(self, node: Any, names: frozenset[str]) -> Expr:
        left, right = self._expr(node.left, names), self._expr(node.right, names)
        if node.op in ("<<", ">>"):
            if right.high >= left.type.bits:
                bits = left.type.bits - 1
                right = Expr(f"({right.source} & {bits})", right.type, 0, bits)
            return self._arithmetic(node.op, left, right, left.type)
        ctype = _common(left.type, right.type)
        left, right = _fit(left._replace(type=ctype)), _fit(right._replace(type=ctype))
        if node.op in _COMPARISONS:
            if left.constant and right.constant:
                return _number(int(_COMPARISONS[node.op](left.low, right.low)), INT)
            return Expr(f"int({left.source} {node.op} {right.source})", INT, 0, 1)
        return self._arithmetic({"/": "//"}.get(node.op, node.op), left, right, ctype)

    @staticmethod
    def _arithmetic(op: str, left: Expr, right: Expr, ctype: CType) -> Expr:
        if op not in ("+", "-", "*", "//", "%", "&", "|", "^", "<<", ">>"):
            raise Untranslatable(op)
        if op == "|" and 0 in (left.high, right.high):  # an alternative that adds nothing
            return (right if left.high == 0 else left)._replace(type=ctype)
        sources = [left.source, right.source]
        if op == "&" and (left.constant or right.constant):  # the constant cuts a parameter to size already
            sources = [re.sub(r"^\((\w+) & 0xffffffffffffffff\)$", r"\1", source) for source in sources]
        return Expr(f"({sources[0]} {op} {sources[1]})", ctype, *_bounds(op, left, right))

    def _Cast(self, node: Any, names: frozenset[str]) -> Expr:
        name = _type_name(node.to_type)
        if name not in _NAMED_TYPES:
            raise Untranslatable(f"cast to {name}")
        return self._expr(node.expr, names)._replace(type=_NAMED_TYPES[name])

    def _FuncCall(self, node: Any, names: frozenset[str]) -> Expr:
        arguments = node.args.exprs if node.args else []
        if node.name.name != "offsetof" or len(arguments) != 2 or getattr(arguments[1], "name", None) not in names:
            raise Untranslatable(f"call of {node.name.name}")
        struct = _type_name(arguments[0])
        return Expr(f'_offsetof("{struct}", {arguments[1].name})', ULONG, 0, self.sizeof(struct))


def _type_name(node: Any) -> str:
    inner = node
    while not isinstance(inner, (c_ast.Struct, c_ast.Union, c_ast.IdentifierType)):
        if not hasattr(inner, "type") or isinstance(inner, c_ast.PtrDecl):
            raise Untranslatable("a type that is not a plain name")
        inner = inner.type
    if isinstance(inner, c_ast.IdentifierType):
        return " ".join(inner.names)
    return f"{'struct' if isinstance(inner, c_ast.Struct) else 'union'} {inner.name}"


class _Headers(Preprocessor):  # type: ignore[misc]  # pcpp has no types
    """linux/kvm.h, preprocessed: the C text without macros, and the macros."""

    def __init__(self, include: Path) -> None:
        super().__init__()
        self.line_directive = None
        self.add_path(str(include))
        self.parse(_PRELUDE + "#define KVMABI_BEGIN\n#include <linux/kvm.h>\n")
        out = io.StringIO()
        self.write(out)
        if self.return_code:
            raise SystemExit(f"{include}: the preprocessor failed")
        self.text = re.sub(r"\n\s*\n+", "\n", out.getvalue())

    def on_include_not_found(self, is_malformed: bool, is_system: bool, curdir: str, includepath: str) -> None:
        if includepath in ("linux/types.h", "linux/ioctl.h", "stddef.h"):  # the prelude stands in for these
            raise OutputDirective(Action.IgnoreAndRemove)
        raise SystemExit(f"no {includepath} in include/")

    def own_macros(self) -> Iterator[tuple[str, Any]]:
        """Macros with a value that our headers define, in the order of definition."""
        names = list(self.macros)
        for name in names[names.index("KVMABI_BEGIN") + 1 :]:
            if self.macros[name].value:
                yield name, self.macros[name]

    def expand(self, text: str) -> str:
        return "".join(token.value for token in self.expand_macros(self.tokenize(text)))

    def parameters(self, macro: Any) -> tuple[str, ...]:
        """Parameter names; a variadic macro that only hands its arguments on has those of the macro behind it."""
        if not macro.variadic:
            return tuple(macro.arglist)
        for token in macro.value:
            inner = self.macros.get(token.value)
            if inner is not None and inner.arglist:
                return self.parameters(inner)
        raise Untranslatable("variadic")


def _enumerators(text: str, translator: Translator) -> dict[str, int]:
    enumerators = translator.enumerators
    types = "typedef int uint8_t, uint16_t, uint32_t, uint64_t, int16_t, int32_t;\n"

    class Visitor(c_ast.NodeVisitor):  # type: ignore[misc]  # pycparser has no types
        def visit_Enum(self, node: Any) -> None:
            following = 0
            for item in node.values.enumerators if node.values else []:
                value = following if item.value is None else translator._expr(item.value, frozenset()).low
                enumerators[item.name] = value
                following = value + 1

    Visitor().visit(c_parser.CParser().parse(types + text))
    return enumerators


def _ioctl_argument(macro: Any) -> str | None:
    """The C type of an ioctl's argument, "" if it has none, None if the macro is not an ioctl."""
    match = re.fullmatch(
        r"_IO(?:R|W|WR)?\(KVMIO,\s*\w+(?:,\s*([\w ]+))?\)", "".join(t.value for t in macro.value).strip()
    )
    return (match[1] or "") if match else None


def _literal(value: int) -> str:
    return str(value) if value < 256 else hex(value)


_MACROS_HEAD = '''\
# Generated from include/ by kvmabi/build_uapi.py: do not edit.
"""Every constant and macro of the KVM headers that has a value of its own. Arguments of macros are __u64."""

from __future__ import annotations

import re
from typing import Final


def _offsetof(struct: str, member: str) -> int:
    """Bytes from the start of struct to a member, written as in C: "fp_regs.vregs[3]"."""
    from kvmabi._uapi_cffi import ffi

    path = [int(index) if index else name for index, name in re.findall(r"\\[(\\d+)\\]|(\\w+)", member)]
    return int(ffi.offsetof(struct, *path))


'''


# For uapi.libc: mapping memory, and the system calls that copy between address spaces with the kernel's own faults.
# A struct iovec is two words here, address and size.
COPIES = """
uintptr_t mmap(uintptr_t address, size_t size_bytes, int protection, int flags, int fd, long offset);
long syscall(long number, long, long, long);
int munmap(uintptr_t address, size_t size_bytes);
int fallocate(int fd, int mode, long offset, long size_bytes);
ssize_t pread(int fd, uintptr_t to, size_t size_bytes, long offset);
ssize_t pwrite(int fd, uintptr_t from, size_t size_bytes, long offset);
ssize_t process_vm_readv(int pid, uintptr_t here[2], unsigned long, uintptr_t there[2], unsigned long, unsigned long);
ssize_t process_vm_writev(int pid, uintptr_t here[2], unsigned long, uintptr_t there[2], unsigned long, unsigned long);
"""


def generate(include: Path) -> dict[str, str]:
    """The generated modules, file name to Python source, from the headers in include/."""
    headers = _Headers(include)
    ffi = cffi.FFI()
    ffi.cdef(headers.text)
    ffi.cdef(COPIES)
    empty = set(re.findall(r"(struct \w+)\s*\{\s*\}", headers.text))
    translator = Translator({}, lambda name: 0 if name in empty else ffi.sizeof(name))
    enumerators = _enumerators(headers.text, translator)
    body, names, ioctls, skipped = [], list(enumerators), [], []
    body += [f"{name}: Final = {_literal(value)}" for name, value in enumerators.items()]
    for name, macro in headers.own_macros():
        try:
            if macro.arglist is None:
                if name not in enumerators:
                    body.append(f"{name}: Final = {_literal(_value(translator.translate(headers.expand(name))))}")
            else:
                body.append(_function(name, headers, translator))
        except Untranslatable:
            skipped.append(name)
            continue
        if name not in enumerators:
            names.append(name)
        argument = _ioctl_argument(macro)
        if argument is not None:
            ioctls.append(f'    "{name}": "{argument}",')
    tables = [
        "",
        "# name of an ioctl -> the C type of its argument",
        "IOCTL_ARGUMENTS: Final[dict[str, str]] = {",
        *ioctls,
        "}",
        "",
        "# C only: they paste tokens or depend on the host",
        f"NOT_TRANSLATED: Final = ({', '.join(map(repr, skipped))},)",
        "",
        f"__all__ = {sorted([*names, 'IOCTL_ARGUMENTS', 'NOT_TRANSLATED'])!r}",
        "",
    ]
    return {
        f"{MACROS_MODULE}.py": _MACROS_HEAD + "\n".join(body + tables),
        f"{CFFI_MODULE}.py": _cffi_source(ffi),
    }


def _value(expr: Expr) -> int:
    if not expr.constant:
        raise Untranslatable(expr.source)
    return expr.low


def _function(name: str, headers: _Headers, translator: Translator) -> str:
    parameters = headers.parameters(headers.macros[name])
    expr = translator.translate(headers.expand(f"{name}({', '.join(parameters)})"), parameters)
    arguments = ", ".join(f"{p}: {'str' if '_offsetof' in expr.source else 'int'}" for p in parameters)
    source = re.sub(r"^\((.*)\)$", r"\1", expr.source)  # always one pair around the whole
    return f"\n\ndef {name}({arguments}) -> int:\n    return {source}\n\n"


def _cffi_source(ffi: cffi.FFI) -> str:
    from cffi.recompiler import Recompiler

    recompiler = Recompiler(ffi, f"kvmabi.{CFFI_MODULE}", target_is_python=True)
    recompiler.collect_type_table()
    recompiler.collect_step_tables()
    out = io.StringIO()
    recompiler.write_source_to_f(out, None)
    return out.getvalue()


def write(include: Path, package: Path) -> None:
    """Generates into the folder package; files that are current stay untouched."""
    for name, source in generate(include).items():
        target = package / name
        if not target.exists() or target.read_text() != source:
            target.write_text(source)


if __name__ == "__main__":
    root = Path(__file__).resolve().parent.parent
    write(root / "include", Path(sys.argv[1]) if len(sys.argv) > 1 else root / "kvmabi")
