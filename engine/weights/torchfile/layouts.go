package torchfile

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// openZip reads DIR/data.pkl, whose storages are the records DIR/data/KEY.
func openZip(file io.ReaderAt, size int64) (*File, error) {
	a, err := readArchive(file, size)
	if err != nil {
		return nil, err
	}
	top, err := a.top()
	if err != nil {
		return nil, err
	}
	f := &File{}
	if r := a.records[top+"byteorder"]; r != nil {
		order, err := a.bytes(r, 16)
		if err != nil {
			return nil, err
		}
		f.BigEndian = strings.TrimSpace(string(order)) == "big"
	}
	pickled := a.records[top+"data.pkl"]
	if pickled.size > maxPickle {
		return nil, refuse(fmt.Sprintf("a pickle of at most %d bytes", maxPickle), fmt.Sprint(pickled.size))
	}
	if err := a.locate(pickled); err != nil {
		return nil, err
	}
	if err := pickled.verify(file); err != nil {
		return nil, err
	}
	storages := map[string]Bytes{}
	m := &machine{input: newInput(pickled.open(file), pickled.size)}
	m.storage = func(class global, id []any) (*storage, error) {
		s, key, err := newStorage(class, id)
		switch {
		case err != nil:
			return nil, err
		case len(id) > 3 && id[3] != nil:
			return nil, refuse("a whole storage", "a view of one")
		case strings.Contains(key, "/"):
			return nil, refuse("a storage's key without a path", key)
		}
		r := a.records[top+"data/"+key]
		if r == nil {
			return nil, refuse(fmt.Sprintf("the record %q of a storage", top+"data/"+key), "none")
		}
		if n, ok := s.bytes(); !ok || n > r.size {
			return nil, refuse(fmt.Sprintf("a storage of at most %d bytes, as the record %q has", r.size, r.name), fmt.Sprintf("%d values", s.elems))
		}
		data, known := storages[key]
		if !known {
			if data, err = a.data(r); err != nil {
				return nil, err
			}
			storages[key] = data
			if r.method == methodStored && r.size > 0 {
				f.records = append(f.records, r)
			}
		}
		s.data = data
		return s, nil
	}
	value, err := m.run()
	if err != nil {
		return nil, err
	}
	if f.Tensors, err = m.tensors(value); err != nil {
		return nil, err
	}
	slices.SortFunc(f.records, func(a, b *record) int { return cmp.Compare(a.begin, b.begin) })
	for i := 1; i < len(f.records); i++ {
		if before := f.records[i-1]; before.begin+before.stored > f.records[i].begin {
			return nil, refuse(fmt.Sprintf("the record %q behind %q", f.records[i].name, before.name), "both in one place")
		}
	}
	return f, nil
}

// top is the one folder of the zip, with a slash.
func (a *archive) top() (string, error) {
	var found []string
	for name := range a.records {
		if folder, ok := strings.CutSuffix(name, "/data.pkl"); ok && !strings.Contains(folder, "/") {
			found = append(found, folder+"/")
		}
	}
	if len(found) != 1 {
		return "", refuse("a zip with one FOLDER/data.pkl, as torch.save writes it", fmt.Sprintf("%d of them", len(found)))
	}
	top := found[0]
	for name := range a.records {
		switch {
		case name == top+"constants.pkl" || strings.HasPrefix(name, top+"code/"):
			return "", refuse("a dict of tensors (a state_dict)", "TorchScript, which has programs beside its tensors")
		case !strings.HasPrefix(name, top):
			return "", refuse("all records of the zip in "+top, fmt.Sprintf("%q", name))
		}
	}
	return top, nil
}

// legacyMagic is 0x1950a86a20f9469cfc6c, lowest byte first.
const legacyMagic = long("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19")

// openLegacy reads five pickles: the magic number, a version, the system, the object and the keys of its storages; behind them is
// each storage's number of values and its bytes.
func openLegacy(file io.ReaderAt, size int64) (*File, error) {
	m := &machine{input: newInput(io.NewSectionReader(file, 0, size), size)}
	magic, err := m.run()
	if err != nil {
		return nil, err
	}
	if magic != legacyMagic {
		return nil, refuse("a torch file, which begins with its magic number", "a pickle of something else: "+describe(magic))
	}
	version, err := m.run()
	if err != nil {
		return nil, err
	}
	if version != int64(1001) {
		return nil, refuse("version 1001 of the old torch files", fmt.Sprint(version))
	}
	system, err := m.run()
	if err != nil {
		return nil, err
	}
	f := &File{}
	if d, ok := system.(*dict); ok {
		f.BigEndian = d.get("little_endian") == false
	}
	l := &legacy{roots: map[string]*storage{}}
	m.storage = l.storage
	value, err := m.run()
	if err != nil {
		return nil, err
	}
	m.storage = nil
	keys, err := m.run()
	if err != nil {
		return nil, err
	}
	if err := l.place(file, size, m.read, keys); err != nil {
		return nil, err
	}
	f.Tensors, err = m.tensors(value)
	return f, err
}

// legacy is the storages of the older layout, whose places are known once all pickles have been read.
type legacy struct {
	roots map[string]*storage
	views []legacyView
}

// legacyView is a storage that is a part of another.
type legacyView struct {
	of, root *storage
	first    int64 // value
}

func (l *legacy) storage(class global, id []any) (*storage, error) {
	s, key, err := newStorage(class, id)
	if err != nil {
		return nil, err
	}
	if s.dtype == "" {
		return nil, refuse("typed storages in an old torch file", class.String())
	}
	root := l.roots[key]
	switch {
	case root == nil:
		root = s
		l.roots[key] = s
	case root.dtype != s.dtype || root.elems != s.elems:
		return nil, refuse("one type and size of each storage", "two")
	}
	if len(id) < 4 || id[3] == nil {
		return root, nil
	}
	var part [3]any // key, first value, number of values
	if items := parts(id[3]); len(items) == len(part) {
		part = [3]any(items)
	}
	first, ok := part[1].(int64)
	elems, okElems := part[2].(int64)
	if !ok || !okElems || first < 0 || elems < 0 || first > root.elems || elems > root.elems-first {
		return nil, refuse("a view inside its storage", describe(id[3]))
	}
	v := &storage{dtype: s.dtype, elems: elems}
	l.views = append(l.views, legacyView{v, root, first})
	return v, nil
}

// place finds the bytes of the storages, which begin at a place in the file, in the order of the keys.
func (l *legacy) place(file io.ReaderAt, size, at int64, keys any) error {
	list, ok := keys.(*list)
	if !ok || len(list.items) != len(l.roots) {
		return refuse(fmt.Sprintf("a list of the file's %d storages", len(l.roots)), describe(keys))
	}
	placed := map[string]bool{}
	for _, k := range list.items {
		key, _ := k.(string)
		s := l.roots[key]
		if s == nil || placed[key] {
			return refuse("each storage once in the list of them", describe(k))
		}
		placed[key] = true
		var count [8]byte
		if err := readFull(file, count[:], at, "a storage"); err != nil {
			return err
		}
		at += int64(len(count))
		n, ok := s.bytes()
		switch stored := binary.LittleEndian.Uint64(count[:]); {
		case stored != uint64(s.elems) || !ok || n > math.MaxInt64-at:
			return refuse(fmt.Sprintf("a storage of %d values", s.elems), fmt.Sprint(stored))
		case n > size-at:
			return refuse(fmt.Sprintf("a file of at least %d bytes", at+n), fmt.Sprintf("one cut off in a storage: %d bytes are missing", at+n-size))
		}
		s.data = Bytes{Offset: at, Size: n}
		at += n
	}
	for _, v := range l.views {
		item := itemBytes(v.root.dtype)
		v.of.data = Bytes{Offset: v.root.data.Offset + v.first*item, Size: v.of.elems * item}
	}
	return nil
}
