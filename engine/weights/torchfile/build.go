package torchfile

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/triptych-serving/triptych/engine/tensor"
)

// storage is what tensors are views of.
type storage struct {
	dtype string // empty: bytes that each tensor has a type for
	elems int64  // values, or bytes
	data  Bytes
}

// view is a tensor in a pickle.
type view struct {
	storage *storage
	dtype   string
	offset  int64 // values
	shape   tensor.Shape
	strides []int64
}

// call builds what a class or function of that name gives, if it is one of those that make up weights; else an opaque.
func (m *machine) call(class, args any) any {
	g, ok := class.(global)
	t, okArgs := args.(*tuple)
	if !ok || !okArgs {
		m.fail("the name of a class and a tuple of arguments", describe(class)+" and "+describe(args))
		return nil
	}
	a := t.items
	if g.is("torch._tensor", "_rebuild_from_type_v2") && len(a) >= 3 { // function, type, arguments, attributes
		of, isName := a[0].(global)
		inner, isTuple := a[2].(*tuple)
		if !isName || !isTuple || of == g {
			m.fail("a tensor with attributes", describe(a[0]))
			return nil
		}
		g, a, t = of, inner.items, inner
	}
	switch {
	case g.is("collections", "OrderedDict"):
		return m.orderedDict(a)
	case g.module == "torch._utils" && strings.HasPrefix(g.name, "_rebuild"):
		return m.rebuild(g.name, a)
	case (g.module == "torch" || g.module == "torch.storage") && strings.HasSuffix(g.name, "Storage"):
		m.fail("storages by their keys", "a call of "+g.String())
		return nil
	}
	return &opaque{class: g, args: t}
}

// orderedDict has the pairs of its argument, as Python 2 wrote them.
func (m *machine) orderedDict(args []any) any {
	d := newDict()
	if len(args) == 0 {
		return d
	}
	for _, pair := range parts(args[0]) {
		kv := parts(pair)
		if len(kv) != 2 {
			m.fail("pairs of keys and values", describe(pair))
			return nil
		}
		m.setItems(d, kv)
	}
	return d
}

// rebuild builds a tensor as torch._utils' function of that name does.
func (m *machine) rebuild(name string, a []any) any {
	switch {
	case (name == "_rebuild_tensor" || name == "_rebuild_tensor_v2") && len(a) >= 4:
		return m.tensor(a, "")
	case name == "_rebuild_tensor_v3" && len(a) >= 7:
		g, _ := a[6].(global)
		dtype := ofDType(g.name)
		if g.module != "torch" || dtype == "" {
			m.fail("a tensor of floats or integers", describe(a[6]))
		}
		return m.tensor(a, dtype)
	case (name == "_rebuild_parameter" || name == "_rebuild_parameter_with_state") && len(a) > 0:
		if v, ok := a[0].(*view); ok {
			return v
		}
		m.fail("a parameter that is a tensor", describe(a[0]))
		return nil
	}
	kind := "a tensor of another kind"
	for part, of := range map[string]string{
		"qtensor": "a quantized tensor", "sparse": "a sparse tensor", "meta": "a meta tensor, which has no data", "nested": "a nested tensor",
	} {
		if strings.Contains(name, part) {
			kind = of
		}
	}
	m.fail("dense tensors with their data", kind+" ("+name+")")
	return nil
}

// tensor checks storage, offset, size and strides.
func (m *machine) tensor(a []any, dtype string) any {
	fail := func(expected, got string) any {
		m.fail(expected, got)
		return nil
	}
	s, ok := a[0].(*storage)
	if !ok {
		return fail("a tensor with a storage", describe(a[0]))
	}
	have := s.elems
	switch {
	case dtype == "" && s.dtype == "":
		dtype = "U8"
	case dtype == "":
		dtype = s.dtype
	case s.dtype == "":
		have /= itemBytes(dtype)
	case s.dtype != dtype:
		return fail("a tensor of its storage's type, "+s.dtype, dtype)
	}
	offset, okOffset := a[1].(int64)
	size, okSize := a[2].(*tuple)
	stride, okStride := a[3].(*tuple)
	if !okOffset || !okSize || !okStride || offset < 0 || len(size.items) != len(stride.items) || len(size.items) > maxRank {
		return fail(fmt.Sprintf("an offset, and a size and a stride for each of at most %d dimensions", maxRank), "others")
	}
	v := &view{storage: s, dtype: dtype, offset: offset, shape: tensor.Shape{}}
	for i := range size.items {
		n, okN := size.items[i].(int64)
		t, okT := stride.items[i].(int64)
		if !okN || !okT || n < 0 || t < 0 {
			return fail("sizes and strides that are not negative", "others")
		}
		v.shape, v.strides = append(v.shape, int(n)), append(v.strides, t)
	}
	m.charge(2 * slot * len(v.shape))
	elems, ok := v.shape.Elems()
	switch {
	case !ok || int64(elems) > max(have, maxGrowth):
		return fail(fmt.Sprintf("a tensor of at most %d values, as its storage has", have), v.shape.String())
	case elems > 0 && !v.inside(have):
		return fail(fmt.Sprintf("a tensor inside its storage of %d values", have), fmt.Sprintf("%v from value %d on with strides %v", v.shape, offset, v.strides))
	}
	return v
}

// inside tells whether the last value is among so many.
func (v *view) inside(have int64) bool {
	last := uint64(v.offset)
	for i, n := range v.shape {
		high, reach := bits.Mul64(uint64(n-1), uint64(v.strides[i]))
		if high != 0 || reach >= uint64(have) {
			return false
		}
		if last += reach; last >= uint64(have) {
			return false
		}
	}
	return last < uint64(have)
}

// persistent is the storage of an id.
func (m *machine) persistent(id any) any {
	t, _ := id.(*tuple)
	switch {
	case m.storage == nil || t == nil || len(t.items) < 2:
		m.fail("no outside object here", describe(id))
	case t.items[0] == "module":
		m.fail("a dict of tensors", "a whole module")
	case t.items[0] != "storage" || len(t.items) < 5 || len(t.items) > 6:
		m.fail("the id of a storage", describe(t.items[0]))
	}
	if m.err != nil {
		return nil
	}
	class, _ := t.items[1].(global)
	s, err := m.storage(class, t.items[2:])
	if err != nil {
		m.err = err
		return nil
	}
	m.charge(container)
	return s
}

// newStorage checks the class, the key and the number of values of an id; the storage has no data yet.
func newStorage(class global, id []any) (*storage, string, error) {
	key, okKey := id[0].(string)
	elems, okElems := id[2].(int64)
	if !okKey || !okElems || elems < 0 || len(key) > maxClass {
		return nil, "", refuse("a storage's key and number of values", describe(id[0])+" and "+describe(id[2]))
	}
	s := &storage{elems: elems}
	if class.is("torch.storage", "UntypedStorage") || class.is("torch", "UntypedStorage") {
		return s, key, nil
	}
	name, isStorage := strings.CutSuffix(class.name, "Storage")
	if s.dtype = ofStorage(name); class.module != "torch" || !isStorage || s.dtype == "" {
		kind := "a storage of type "
		if strings.HasPrefix(name, "QInt") || strings.HasPrefix(name, "QUInt") {
			kind = "a quantized tensor: "
		}
		return nil, "", refuse("storages of floats or integers", kind+class.String())
	}
	return s, key, nil
}

// bytes are those that the values take; ok is false if they are more than can be.
func (s *storage) bytes() (n int64, ok bool) {
	item := int64(1)
	if s.dtype != "" {
		item = itemBytes(s.dtype)
	}
	high, low := bits.Mul64(uint64(s.elems), uint64(item))
	return int64(low), high == 0 && int64(low) >= 0
}
