package main

import (
	"errors"
	"fmt"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/triptych-serving/triptych/engine/sampler"
	"github.com/triptych-serving/triptych/internal/infotext"
)

// repetition reads the settings of a picture as flags and options. What it cannot honour it warns of; what would make another picture
// for certain is an error, unless a flag says otherwise.
type repetition struct {
	flags   *pflag.FlagSet
	told    infotext.Parameters
	picture *fromPicture
	own     bool // Triptych wrote them
	another bool // a flag names the sampler
}

// ownOption is how the names of our options look.
var ownOption = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)

// flagOf are the settings that a flag says, whoever wrote them.
var flagOf = map[string]string{"Steps": "steps", "CFG scale": "guidance-scale", "Seed": "seed"}

// isOwn tells our settings: options by their names, and few others, with our names of samplers and schedules.
func isOwn(p infotext.Parameters) bool {
	_, model := p.Get("Model")
	name, sampled := p.Get("Sampler")
	schedule, scheduled := p.Get("Schedule type")
	if sampled && !slices.Contains(sampler.Names(), name) || scheduled && !slices.Contains(sampler.Schedules(), schedule) {
		return false
	}
	return model && !slices.ContainsFunc(p.Fields, func(f infotext.Field) bool {
		return flagOf[f.Key] == "" && !slices.Contains([]string{"Sampler", "Schedule type", "Size", "Model", "Denoising strength", "Compute"}, f.Key) && !ownOption.MatchString(f.Key)
	})
}

func (r *repetition) given(flag string) bool {
	f := r.flags.Lookup(flag)
	return f != nil && f.Changed
}

func (r *repetition) warn(format string, args ...any) {
	r.picture.warnings = append(r.picture.warnings, fmt.Sprintf(format, args...))
}

// set gives a flag the value that a setting means, unless it is given.
func (r *repetition) set(flag string, of infotext.Field, value string) error {
	if r.given(flag) {
		return nil
	}
	if err := r.flags.Set(flag, value); err != nil {
		return fmt.Errorf("%s: expected %s, or --%s", setting(of), accepted[r.flags.Lookup(flag).Value.Type()], flag)
	}
	return nil
}

func (r *repetition) option(name, value string, of infotext.Field, must bool) {
	r.picture.options = append(r.picture.options, toldOption{name, value, of, must})
}

// take reads all settings.
func (r *repetition) take() error {
	r.own, r.another = isOwn(r.told), r.given("sampler")
	if err := r.set("negative-prompt", infotext.Field{}, r.told.Negative); err != nil {
		return err
	}
	for _, f := range r.told.Fields {
		if err := r.field(f); err != nil {
			return err
		}
	}
	if r.own {
		return nil
	}
	if _, ok := r.told.Get("Model"); !ok && !r.given("model") {
		if hash, ok := r.told.Get("Model hash"); ok {
			r.warn("%s: a model cannot be found by its hash; the default one is used, --model names another", setting(infotext.Field{Key: "Model hash", Value: hash}))
		}
	}
	r.prompts()
	noise := "draws its noise with another generator than torch's on a CPU, in another precision and"
	if rng, _ := r.told.Get("RNG"); rng == "CPU" {
		noise = "draws in another precision and"
	}
	r.warn("another program made this picture. It %s by other noise levels, so that the same settings give a similar picture at best, and not its pixels", noise)
	return r.hires()
}

// field reads one setting that means something by itself.
func (r *repetition) field(f infotext.Field) error {
	if flag := flagOf[f.Key]; flag != "" {
		return r.set(flag, f, f.Value)
	}
	switch f.Key {
	case "Sampler":
		if r.own {
			return r.set("sampler", f, f.Value)
		}
		return r.sampler(f)
	case "Size":
		width, height, ok := strings.Cut(f.Value, "x")
		if !ok {
			return fmt.Errorf("%s: expected WIDTHxHEIGHT", setting(f))
		}
		return errors.Join(r.set("width", f, width), r.set("height", f, height))
	case "Model":
		r.picture.model = f.Value
		if !r.own {
			r.picture.model = fileName(f.Value)
		}
		return nil
	case "Denoising strength":
		return r.strength(f)
	case "Compute":
		if r.own && !r.given("compute") {
			r.warn("%s: the picture was not computed in float32; services with --compute %s give the same", setting(f), f.Value)
		}
		if r.own {
			return nil
		}
	}
	if r.own {
		return r.ownField(f)
	}
	return r.others(f)
}

// ownField reads an option of ours.
func (r *repetition) ownField(f infotext.Field) error {
	switch {
	case f.Key == "Schedule type":
		if !r.another {
			r.option("schedule", f.Value, f, true)
		}
	case f.Key != "task":
		r.option(f.Key, f.Value, f, true)
	case f.Value == taskUpscale:
		return fmt.Errorf("%s: expected a picture that generate has made; triptych upscale repeats this one", setting(f))
	default:
		r.picture.task = f.Value
	}
	return nil
}

// strength reads how much of another picture was changed, if it was not that of the second pass.
func (r *repetition) strength(f infotext.Field) error {
	_, control := r.told.Get("controlnets")
	_, image := r.told.Get("ip_adapter")
	switch {
	case r.given("init-image"):
		return r.set("strength", f, f.Value)
	case !r.isHires() && !control && !image:
		r.warn("%s: it was drawn from another picture, which --init-image names", setting(f))
	}
	return nil
}

// sampler reads the name of a sampler with the schedule that other programs name beside it.
func (r *repetition) sampler(f infotext.Field) error {
	if r.given("sampler") || f.Value == "Default" {
		return nil
	}
	schedule := ""
	for _, key := range []string{"Schedule type", "Scheduler", "Sampler sigma"} {
		if v, ok := r.told.Get(key); ok && !strings.HasSuffix(v, "Scheduler") && schedule == "" { // a class of diffusers
			schedule = v
		}
	}
	choice, err := sampler.Parse(f.Value, schedule)
	if err != nil {
		told := setting(f)
		if schedule != "" {
			told += " with schedule " + fmt.Sprintf("%q", schedule)
		}
		return fmt.Errorf("%s: %w; --sampler names another", told, err)
	}
	if choice.Schedule != "" {
		r.option("schedule", choice.Schedule, f, true)
	}
	return r.set("sampler", f, choice.Sampler)
}

// clipSkips are the options that A1111's "Clip skip" stands for, which counts from 1.
func clipSkips() []string { return []string{"clip_skip", "negative_clip_skip"} }

// others reads a setting of another program.
func (r *repetition) others(f infotext.Field) error {
	switch {
	case slices.Contains(untold, f.Key) || f.Key == "Model hash" || isNeutral(f.Value):
		return nil
	case f.Key == "Clip skip":
		n, err := strconv.Atoi(f.Value)
		if err != nil || n < 0 {
			return fmt.Errorf("%s: expected a whole number", setting(f))
		}
		for _, name := range clipSkips() {
			if n > 1 {
				r.option(name, strconv.Itoa(n-1), f, false)
			}
		}
	case f.Key == "Emphasis" && (f.Value == "Original" || f.Value == "No norm"):
		r.option("restore_mean", strconv.FormatBool(f.Value == "Original"), f, false)
	case f.Key == "CFG rescale":
		r.option("guidance_rescale", f.Value, f, false)
	case f.Key == "Refiner":
		share := ""
		for _, key := range []string{"Refiner switch at", "Refiner start"} {
			if v, ok := r.told.Get(key); ok {
				share = ":" + v
			}
		}
		r.option("refiner", fileName(f.Value)+share, f, true)
	case strings.HasPrefix(f.Key, "ControlNet"):
		if !r.given("controlnet") {
			r.warn("%s: it is not honoured; --controlnet and --control-image name one", setting(f))
		}
	case strings.HasPrefix(f.Key, "Hires"):
		r.hiresField(f)
	case f.Key == "VAE":
		if !r.given("vae") {
			r.warn("%s: the model's own autoencoder is used; --vae names the file of another", setting(f))
		}
	default:
		r.warn("%s: it is not honoured", setting(f))
	}
	return nil
}

// untold are the settings that change no picture, or that others speak for.
var untold = []string{
	"Version", "App", "Parser", "Backend", "Pipeline", "Operations", "User", "Comment", "Time", "Created Date", "Civitai resources", "Civitai metadata",
	"VAE hash", "Lora hashes", "TI hashes", "Hashes", "LoRA networks", "Batch size", "Batch pos", "Template", "Negative Template", "Init image hash", "Init image size",
	"Schedule type", "Scheduler", "Sampler sigma", "Refiner switch at", "Refiner start", "Refine", "Second pass", "RNG", "Variation seed strength", "Variation strength",
	"Hires upscale", "Hires scale", "Hires resize", "Hires size", "Hires steps", "Hires upscaler", "Hires strength", "Hires force",
}

// isNeutral tells what a setting says that is switched off.
func isNeutral(value string) bool {
	return slices.Contains([]string{"", "False", "None", "none", "Disable", "Disabled", "Automatic", "Use same choices", "Use same checkpoint", "Use same sampler", "Use same scheduler"}, value)
}

// hiresField warns of what the second pass has by itself.
func (r *repetition) hiresField(f infotext.Field) {
	same := map[string]string{
		"Hires prompt": r.told.Prompt, "Hires negative prompt": r.told.Negative,
	}
	for key, first := range map[string]string{"Hires sampler": "Sampler", "Hires schedule type": "Schedule type", "Hires CFG Scale": "CFG scale", "Hires CFG scale": "CFG scale", "Hires checkpoint": "Model"} {
		same[key], _ = r.told.Get(first)
	}
	if f.Value != same[f.Key] {
		r.warn("%s: the second pass has the settings of the first", setting(f))
	}
}

// prompts warns of what A1111 reads in prompts and we do not.
func (r *repetition) prompts() {
	for _, text := range []string{r.told.Prompt, r.told.Negative} {
		if slices.Contains(strings.Fields(text), "AND") {
			r.warn("%q in a prompt is read as a word", "AND")
		}
		for _, tag := range []string{"<hypernet:", "<lyco:"} {
			if _, behind, ok := strings.Cut(text, tag); ok {
				inside, _, _ := strings.Cut(behind, ">")
				r.warn("%s in a prompt is read as words", setting(infotext.Field{Value: tag + inside + ">"}))
			}
		}
	}
}

// isHires tells whether another program drew in two passes.
func (r *repetition) isHires() bool {
	_, ok := r.hiresScale()
	return ok
}

func (r *repetition) hiresScale() (f infotext.Field, ok bool) {
	if r.own {
		task, _ := r.told.Get("task")
		return f, task == taskHires
	}
	for _, key := range []string{"Hires upscale", "Hires scale", "Hires resize"} {
		if v, said := r.told.Get(key); said && v != "0x0" && v != "0" && v != "None" && !ok {
			f, ok = infotext.Field{Key: key, Value: v}, true
		}
	}
	return f, ok
}

// hires reads the second pass of another program.
func (r *repetition) hires() error {
	scale, ok := r.hiresScale()
	if !ok {
		return nil
	}
	if force, _ := r.told.Get("Hires force"); force == "False" {
		r.warn("%s: it may have been enlarged and not drawn again; --hires 1x and --upscale do that", setting(infotext.Field{Key: "Hires force", Value: force}))
	}
	factor := scale.Value
	if scale.Key == "Hires resize" {
		size, _ := r.told.Get("Size")
		if factor, ok = larger(size, scale.Value); !ok {
			return fmt.Errorf("%s of %q: expected both sides so much larger, or --hires", setting(scale), size)
		}
	}
	strength := infotext.Field{Key: "Denoising strength", Value: "0.75"}
	for _, key := range []string{"Denoising strength", "Hires strength"} {
		if v, said := r.told.Get(key); said {
			strength = infotext.Field{Key: key, Value: v}
		}
	}
	steps := infotext.Field{Key: "Steps"}
	for _, key := range []string{"Steps", "Hires steps"} {
		if v, said := r.told.Get(key); said && v != "0" {
			steps = infotext.Field{Key: key, Value: v}
		}
	}
	if err := errors.Join(r.set("hires", scale, factor), r.set("hires-strength", strength, strength.Value)); err != nil {
		return err
	}
	if n, all := wholeSteps(steps.Value, strength.Value); all {
		if err := r.set("hires-steps", steps, n); err != nil {
			return err
		}
	}
	return r.hiresUpscaler()
}

// hiresUpscaler reads what enlarges the first picture.
func (r *repetition) hiresUpscaler() error {
	v, ok := r.told.Get("Hires upscaler")
	f := infotext.Field{Key: "Hires upscaler", Value: v}
	switch name := upscalerOf(v); {
	case !ok || r.given("hires-upscaler") || name == "":
		return nil
	case strings.HasPrefix(v, "Latent") || v == "Nearest":
		return fmt.Errorf("%s: expected the name of an upscaler, or --hires-upscaler, which may be \"\" for Lanczos' filter", setting(f))
	default:
		return r.set("hires-upscaler", f, name)
	}
}

// wholeSteps is of how many steps a share has so many: A1111 counts those of the second pass that are taken. ok is false of what is no
// number.
func wholeSteps(taken, share string) (steps string, ok bool) {
	n, err := strconv.Atoi(taken)
	s, err2 := strconv.ParseFloat(share, 64)
	if err != nil || err2 != nil || n < 1 || n > sampler.MaxSteps || !(s > 0 && s <= 1) {
		return "", false
	}
	of := int(float64(n) / s)
	for int(float64(of)*s) < n {
		of++
	}
	return strconv.Itoa(min(of, sampler.MaxSteps)), true
}

// larger is how much larger a size is than another in both directions, where one side may be 0 and follow; ok is false if it is not.
func larger(from, to string) (factor string, ok bool) {
	var w, h, tw, th int
	if n, err := fmt.Sscanf(from+" "+to, "%dx%d %dx%d", &w, &h, &tw, &th); n != 4 || err != nil || w < 1 || h < 1 || tw < 0 || th < 0 || tw+th == 0 {
		return "", false
	}
	x, y := float64(tw)/float64(w), float64(th)/float64(h)
	if tw > 0 && th > 0 && math.Abs(x-y) > 0.01 {
		return "", false
	}
	return strconv.FormatFloat(max(x, y), 'g', -1, 64), true
}
