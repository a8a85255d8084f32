package imaging

// Info is what an image file tells of itself.
type Info struct {
	Format        Format
	Width, Height int    // pixels, as it is to be seen
	Parameters    string // how it was made, the text that Encode keeps under "parameters"; empty if there is none
}

// Inspect reads a file that Decode reads. All of it is decoded, so that one that is cut off or damaged is an error, which is an
// Error.
func Inspect(data []byte) (Info, error) {
	pixels, err := Decode(data)
	if err != nil {
		return Info{}, err
	}
	format, _ := sniff(data)
	info := Info{Format: format, Width: pixels.Width, Height: pixels.Height}
	texts, err := ReadText(data)
	for _, t := range texts {
		if t.Key == commentKey {
			info.Parameters = t.Value
		}
	}
	return info, err
}
