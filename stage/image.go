package stage

// The formats of image files, as in requests and, behind "image/", on the web. PNG is the only one that carries text.
const (
	PNG  = "png"
	JPEG = "jpeg"
	WebP = "webp"
)

// ImageFormats lists the formats, the default first.
func ImageFormats() []string { return []string{PNG, JPEG, WebP} }
