# mypy: disallow-untyped-defs=False
"""Parses a page with lexbor, the parser that selectolax ships, by its C functions. Python and kernels call these."""

import ctypes
from ctypes import POINTER, byref, c_bool, c_char_p, c_int, c_size_t, c_void_p
from functools import cache
from importlib.util import find_spec
from types import TracebackType
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic
from numpy.typing import NDArray

from corpusmill.ingest.html import TooDeep
from corpusmill.pipeline.errors import CorpusmillError
from corpusmill.pipeline.kernel import kernel

WORD = ir.IntType(64)


def _call(builder, arguments):
    address, *rest = arguments
    function = builder.inttoptr(address, ir.FunctionType(WORD, [WORD] * len(rest)).as_pointer())
    return builder.call(function, rest)


@intrinsic
def call_1(typing_context, address, argument):
    """Calls a C function with one argument; argument and result are int64."""
    return types.int64(types.int64, types.int64), lambda context, builder, signature, arguments: _call(builder, arguments)


@intrinsic
def call_2(typing_context, address, first, second):
    """Calls a C function with two arguments; arguments and result are int64."""
    return types.int64(types.int64, types.int64, types.int64), lambda context, builder, signature, arguments: _call(builder, arguments)


#: The functions that kernels call, in the order of `api()`; the constants below are their indexes.
FUNCTIONS = (
    "lxb_dom_node_first_child_noi", "lxb_dom_node_next_noi", "lxb_dom_node_parent_noi", "lxb_dom_node_type_noi", "lxb_dom_node_tag_id_noi",
    "lxb_dom_node_text_content", "lxb_dom_element_first_attribute_noi", "lxb_dom_element_next_attribute_noi",
    "lxb_dom_attr_local_name_noi", "lxb_dom_attr_value_noi", "lxb_dom_element_local_name", "lxb_dom_node_last_child_noi",
)  # fmt: skip
FIRST_CHILD, NEXT, PARENT, TYPE, TAG_ID, TEXT = range(6)
FIRST_ATTRIBUTE, NEXT_ATTRIBUTE, ATTRIBUTE_NAME, ATTRIBUTE_VALUE, ELEMENT_NAME, LAST_CHILD = range(6, 12)
#: Types of nodes.
ELEMENT, TEXT_NODE = 1, 3

#: The functions that Python calls: types of the result and of the arguments.
SIGNATURES: dict[str, tuple[Any, list[Any]]] = {
    "lxb_html_document_create": (c_void_p, []),
    "lxb_html_document_destroy": (c_void_p, [c_void_p]),
    "lxb_html_document_parse_chunk_begin": (c_int, [c_void_p]),
    "lxb_html_document_parse_chunk": (c_int, [c_void_p, c_void_p, c_size_t]),
    "lxb_html_document_parse_chunk_end": (c_int, [c_void_p]),
    "lxb_html_document_head_element_noi": (c_void_p, [c_void_p]),
    "lxb_html_document_body_element_noi": (c_void_p, [c_void_p]),
    "lxb_html_document_title": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "lxb_html_document_create_element_noi": (c_void_p, [c_void_p, c_char_p, c_size_t, c_void_p]),
    "lxb_html_serialize_tree_str": (c_int, [c_void_p, c_void_p]),
    "lxb_dom_document_root": (c_void_p, [c_void_p]),
    "lxb_dom_node_tag_id_noi": (c_size_t, [c_void_p]),
    "lxb_dom_node_text_content": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "lxb_dom_element_get_attribute": (c_void_p, [c_void_p, c_char_p, c_size_t, POINTER(c_size_t)]),
    "lxb_dom_element_local_name": (c_void_p, [c_void_p, POINTER(c_size_t)]),
    "lxb_dom_node_parent_noi": (c_void_p, [c_void_p]),
    "lxb_dom_node_prev_noi": (c_void_p, [c_void_p]),
    "lxb_dom_node_first_child_noi": (c_void_p, [c_void_p]),
    "lxb_dom_node_type_noi": (c_int, [c_void_p]),
    "lxb_dom_document_create_text_node": (c_void_p, [c_void_p, c_char_p, c_size_t]),
    "lxb_dom_node_insert_before": (None, [c_void_p, c_void_p]),
    "lxb_dom_node_insert_child": (None, [c_void_p, c_void_p]),
    "lxb_dom_node_remove": (None, [c_void_p]),
    "lxb_dom_collection_create": (c_void_p, [c_void_p]),
    "lxb_dom_collection_init": (c_int, [c_void_p, c_size_t]),
    "lxb_dom_collection_destroy": (c_void_p, [c_void_p, c_bool]),
    "lxb_dom_collection_length_noi": (c_size_t, [c_void_p]),
    "lxb_dom_collection_node_noi": (c_void_p, [c_void_p, c_size_t]),
    "lxb_dom_elements_by_tag_name": (c_int, [c_void_p, c_void_p, c_char_p, c_size_t]),
    "lxb_dom_elements_by_class_name": (c_int, [c_void_p, c_void_p, c_char_p, c_size_t]),
    "lxb_dom_elements_by_attr": (c_int, [c_void_p, c_void_p, c_char_p, c_size_t, c_char_p, c_size_t, c_bool]),
}


#: Bytes that are parsed before the depth of the tree is checked, because lexbor takes quadratic time for deeply nested elements. The first
#: chunk is smaller, because some markup makes thousands of elements from one kilobyte.
FIRST_CHUNK, CHUNK = 1 << 14, 1 << 16


class _String(ctypes.Structure):
    """`lexbor_str_t`."""

    _fields_ = (("data", c_void_p), ("length", c_size_t))


@cache
def library() -> ctypes.CDLL:
    """Loads lexbor. Raises CorpusmillError if the installed selectolax does not export its functions."""
    found = find_spec("selectolax.lexbor")
    try:
        lexbor = ctypes.CDLL(found.origin if found and found.origin else "selectolax.lexbor")
        for name, (result, arguments) in SIGNATURES.items():
            function = getattr(lexbor, name)
            function.restype, function.argtypes = result, arguments
        return lexbor
    except (OSError, AttributeError) as error:
        raise CorpusmillError(f"ingest: the parser lexbor can't be loaded from selectolax ({error}).") from error


@cache
def api() -> NDArray[np.int64]:
    """Returns the addresses of FUNCTIONS."""
    return np.array([ctypes.cast(getattr(library(), name), c_void_p).value for name in FUNCTIONS], np.int64)


class Tree:
    """The tree of a page, with the repairs that browsers make. It lies in lexbor's memory until the end of a `with` block.

    Elements are addresses. `root` is the body, or the whole page if it has no body (then `body` is 0). Raises MemoryError; raises TooDeep
    for a long page as soon as its elements are nested more deeply than `max_nesting`.
    """

    def __init__(self, html: bytes, max_nesting: int = 1 << 30):
        self.lexbor = library()
        self.document = _there(self.lexbor.lxb_html_document_create())
        try:
            self._parse(html, max_nesting)
            self.head: int = self.lexbor.lxb_html_document_head_element_noi(self.document) or 0
            self.body: int = self.lexbor.lxb_html_document_body_element_noi(self.document) or 0
            self.root: int = self.body or self.lexbor.lxb_dom_document_root(self.document) or 0
        except BaseException:
            self.close()
            raise

    def _parse(self, html: bytes, max_nesting: int) -> None:
        lexbor, document, start = self.lexbor, self.document, ctypes.cast(c_char_p(html), c_void_p).value or 0
        failed = lexbor.lxb_html_document_parse_chunk_begin(document)
        place = 0
        while place < len(html) and not failed:
            if place and deepest_last(document, api()) > max_nesting:
                raise TooDeep
            size = min(CHUNK, max(FIRST_CHUNK, place), len(html) - place)
            failed = lexbor.lxb_html_document_parse_chunk(document, start + place, size)
            place += size
        if failed or lexbor.lxb_html_document_parse_chunk_end(document):
            raise MemoryError  # lexbor fails for no other reason

    def __enter__(self) -> "Tree":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self.lexbor.lxb_html_document_destroy(self.document)

    @property
    def title(self) -> str | None:
        return self._string(self.lexbor.lxb_html_document_title, self.document)

    def serialised(self, element: int) -> bytes:
        """Returns an element and its content as HTML in UTF-8."""
        string = _String()
        if element and self.lexbor.lxb_html_serialize_tree_str(element, byref(string)):
            raise MemoryError
        return ctypes.string_at(string.data, string.length) if string.data else b""

    def text(self, element: int) -> str | None:
        """Returns all text in an element, its white space unchanged; None if it has none."""
        return self._string(self.lexbor.lxb_dom_node_text_content, element)

    def attribute(self, element: int, name: bytes) -> str | None:
        return self._string(self.lexbor.lxb_dom_element_get_attribute, element, name, len(name))

    def named(self, name: bytes, by_class: bool = False) -> list[int]:
        """Returns the elements below the root with a name, or of a class, in the order of the page."""
        find = self.lexbor.lxb_dom_elements_by_class_name if by_class else self.lexbor.lxb_dom_elements_by_tag_name
        return self._collected(find, name, len(name))

    def having(self, attribute: bytes, value: bytes) -> list[int]:
        """Returns the elements below the root with this value of an attribute, in the order of the page."""
        return self._collected(self.lexbor.lxb_dom_elements_by_attr, attribute, len(attribute), value, len(value), True)

    def _collected(self, find: Any, *arguments: Any) -> list[int]:
        collection = _there(self.lexbor.lxb_dom_collection_create(self.document))
        try:
            if self.lexbor.lxb_dom_collection_init(collection, 16) or find(self.root, collection, *arguments):
                raise MemoryError
            count = self.lexbor.lxb_dom_collection_length_noi(collection)
            return [self.lexbor.lxb_dom_collection_node_noi(collection, place) for place in range(count)]
        finally:
            self.lexbor.lxb_dom_collection_destroy(collection, True)

    def name(self, node: int) -> str:
        """Returns the name of an element; empty for 0 and other nodes."""
        is_element = node and self.lexbor.lxb_dom_node_type_noi(node) & 0xFFFFFFFF == ELEMENT
        return self._string(self.lexbor.lxb_dom_element_local_name, node) or "" if is_element else ""

    def parent(self, node: int) -> int:
        return self.lexbor.lxb_dom_node_parent_noi(node) or 0

    def before(self, node: int) -> int:
        """Returns the sibling before a node, or 0."""
        return self.lexbor.lxb_dom_node_prev_noi(node) or 0

    def insert_before(self, element: int, text: str) -> None:
        self.lexbor.lxb_dom_node_insert_before(element, self._new_text(text))

    def fill(self, element: int, text: str) -> None:
        """Puts a text in the place of all that is in an element. What was there stays in memory, so its addresses stay valid."""
        while child := self.lexbor.lxb_dom_node_first_child_noi(element):
            self.lexbor.lxb_dom_node_remove(child)
        self.lexbor.lxb_dom_node_insert_child(element, self._new_text(text))

    def _new_text(self, text: str) -> int:
        data = text.encode()
        return _there(self.lexbor.lxb_dom_document_create_text_node(self.document, data, len(data)))

    @staticmethod
    def _string(function: Any, *arguments: Any) -> str | None:
        length = c_size_t()
        data = function(*arguments, byref(length))
        return ctypes.string_at(data, length.value).decode("utf-8", "replace") if data else None


@kernel
def deepest_last(node, functions):
    """Follows the last children down from `node`; returns how deep that goes: about as many elements as the parser has open."""
    depth = 0
    while node:
        node = call_1(functions[LAST_CHILD], node)
        depth += 1
    return depth


def tag_ids(names: list[str]) -> list[int]:
    """Returns lexbor's numbers for elements of HTML, by their names."""
    lexbor = library()
    with Tree(b"") as tree:
        elements = [lexbor.lxb_html_document_create_element_noi(tree.document, name.encode(), len(name), None) for name in names]
        return [lexbor.lxb_dom_node_tag_id_noi(_there(element)) for element in elements]


def _there(address: int | None) -> int:
    if not address:
        raise MemoryError
    return address
