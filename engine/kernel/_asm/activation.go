package main

// together is the number of vectors an activation goes through in step.
const together = 3

func activation(g *gen) {
	for _, act := range acts {
		g.function("finish"+act.suffix+g.isa, "func(dst, acc, bias, shift, residual *float32, n int)",
			"is Finish with "+act.suffix+"; bias, shift and residual may be nil.")
		dst, acc, bias, shift, residual, n := g.arg("dst"), g.arg("acc"), g.arg("bias"), g.arg("shift"), g.arg("residual"), g.arg("n")
		g.each(n, together, func(l []lanes) {
			ys := loadAll(l, acc)
			g.addIfAny(l, bias, ys)
			g.addIfAny(l, shift, ys)
			act.apply(g, ys...)
			g.addIfAny(l, residual, ys)
			storeAll(l, ys, dst)
		})
		g.ret()
	}
	for _, act := range acts {
		g.function("activate"+act.suffix+g.isa, "func(dst, x *float32, n int)", "is Activate with "+act.suffix+".")
		dst, x, n := g.arg("dst"), g.arg("x"), g.arg("n")
		g.each(n, together, func(l []lanes) {
			ys := loadAll(l, x)
			act.apply(g, ys...)
			storeAll(l, ys, dst)
		})
		g.ret()
	}
	g.function("geglu"+g.isa, "func(dst, x, gate *float32, n int)", "is GEGLU.")
	dst, x, gate, n := g.arg("dst"), g.arg("x"), g.arg("gate"), g.arg("n")
	g.each(n, together, func(l []lanes) {
		ys := loadAll(l, gate)
		g.gelu(ys...)
		for i, y := range ys {
			g.VMULPS(l[i].load(x), y, y)
		}
		storeAll(l, ys, dst)
	})
	g.ret()
}
