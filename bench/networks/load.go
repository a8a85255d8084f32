package networks

import (
	"context"
	"errors"
	"path/filepath"
	"time"

	"github.com/triptych-serving/triptych/bench/limits"
	"github.com/triptych-serving/triptych/bench/models"
	"github.com/triptych-serving/triptych/bench/stat"
	"github.com/triptych-serving/triptych/engine/device"
	"github.com/triptych-serving/triptych/engine/device/cpu"
)

// LoadRow is how fast the weights of a network get from their files into the form that is computed from. Rates are
// stored bytes, in 1e9 a second.
type LoadRow struct {
	Name  string `json:"name"`
	Bytes int64  `json:"stored_bytes"`
	// ColdMs is with nothing of the file in the page cache, DiskMs a plain read of the same file so, by turns with it;
	// both are empty where the page cache cannot be dropped. WarmMs is with the file in the page cache.
	ColdMs stat.Summary `json:"cold_ms"`
	DiskMs stat.Summary `json:"disk_read_ms"`
	WarmMs stat.Summary `json:"warm_ms"`
	ColdGB float64      `json:"cold_gb_s"`
	WarmGB float64      `json:"warm_gb_s"`
	// DiskShare is DiskMs to ColdMs, scaled by what of the file is loaded; MemcpyShare the warm rate to that of a plain
	// copy on all threads, FreshShare to that of one into fresh memory. All are of the fastest times.
	DiskShare   float64 `json:"disk_share"`
	MemcpyShare float64 `json:"memcpy_share"`
	FreshShare  float64 `json:"fresh_share"`
}

// loadReps are few: a disk is slow, and a load touches all of the memory.
const loadReps = 3

// MeasureLoad loads the networks of a model in this process.
func MeasureLoad(ctx context.Context, o Options, m Model, l limits.Limits) ([]LoadRow, error) {
	of, err := models.Open(m.Path)
	if err != nil {
		return nil, err
	}
	dev, err := cpu.New(cpu.Options{Threads: o.Threads})
	if err != nil {
		return nil, err
	}
	defer dev.Close() //nolint:errcheck // it never fails
	var rows []LoadRow
	for _, name := range of.Networks() {
		folder := models.Folder(name)
		files, err := weightFiles(filepath.Join(m.Path, folder))
		if err != nil {
			return rows, err
		}
		row, err := measureLoad(ctx, dev, files, func() (models.Network, error) { return of.Network(name) })
		if err != nil {
			return rows, err
		}
		row.Name = m.Name + " " + folder
		if row.WarmGB > 0 && l.Memcpy.All > 0 && l.Fresh.All > 0 {
			row.MemcpyShare, row.FreshShare = row.WarmGB/l.Memcpy.All, row.WarmGB/l.Fresh.All
		}
		rows = append(rows, row)
	}
	return rows, nil
}

func measureLoad(ctx context.Context, dev device.Device, files []string, open func() (models.Network, error)) (LoadRow, error) {
	var row LoadRow
	var cold, disk, warm []float64
	var fileBytes int64
	once := func() (float64, error) {
		start := time.Now()
		n, err := open()
		if err != nil {
			return 0, err
		}
		row.Bytes = n.StoredBytes()
		w, err := dev.Load(ctx, n.Manifest(), device.LoadPlan{}, n.Source(), nil)
		took := 1e3 * time.Since(start).Seconds()
		if err == nil {
			w.Free()
		}
		return took, errors.Join(err, n.Close())
	}
	for range loadReps {
		fileBytes = 0
		read := 0.0
		for _, f := range files {
			n, seconds, err := limits.DiskRead(f)
			if err != nil {
				return row, err
			}
			fileBytes, read = fileBytes+n, read+seconds
		}
		switch err := limits.DropCached(files...); {
		case errors.Is(err, errors.ErrUnsupported):
		case err != nil:
			return row, err
		default:
			ms, err := once()
			if err != nil {
				return row, err
			}
			cold, disk = append(cold, ms), append(disk, 1e3*read)
		}
		ms, err := once()
		if err != nil {
			return row, err
		}
		warm = append(warm, ms)
	}
	row.ColdMs, row.DiskMs, row.WarmMs = stat.Summarize(cold), stat.Summarize(disk), stat.Summarize(warm)
	row.WarmGB = float64(row.Bytes) / row.WarmMs.Min / 1e6
	if row.ColdMs.Min > 0 {
		row.ColdGB = float64(row.Bytes) / row.ColdMs.Min / 1e6
		row.DiskShare = row.ColdGB / (float64(fileBytes) / row.DiskMs.Min / 1e6)
	}
	return row, nil
}

// weightFiles are the safetensors files of a folder.
func weightFiles(dir string) ([]string, error) {
	return filepath.Glob(filepath.Join(dir, "*.safetensors"))
}
