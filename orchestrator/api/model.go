package api

import (
	"strings"

	"github.com/triptych-serving/triptych/orchestrator/fleet"
	triptychv1alpha1 "github.com/triptych-serving/triptych/proto/triptych/v1alpha1"
	"github.com/triptych-serving/triptych/stage"
)

// ModelProto is a model as the public API tells it.
func ModelProto(m fleet.Model) *triptychv1alpha1.Model {
	p := &triptychv1alpha1.Model{Name: m.Name, Adapter: m.Adapter, Warning: strings.Join(m.Warnings, "; ")}
	if m.Problem != nil {
		p.Problem = m.Problem.Message
	}
	for _, c := range m.Components {
		p.Components = append(p.Components, &triptychv1alpha1.ModelComponent{
			Name: c.Name, Stage: c.Kind.String(), WeightsBytes: c.WeightsBytes, Identity: c.Identity, Problem: c.Problem,
		})
	}
	for _, kind := range stage.Kinds() {
		p.Stages = append(p.Stages, stageProto(m, kind))
	}
	for i, r := range m.Recipes {
		t := &triptychv1alpha1.Task{Name: r.Task}
		for _, in := range r.Inputs {
			t.Inputs = append(t.Inputs, &triptychv1alpha1.Input{Name: in.Name, Media: in.Media, Optional: in.Optional})
		}
		for _, o := range r.Options {
			t.Options = append(t.Options, &triptychv1alpha1.Option{
				Name: o.Name, Type: triptychv1alpha1.Option_Type(o.Type), Default: optionToProto(o.Default), Min: o.Min, Max: o.Max,
				Multiple: o.Multiple, Choices: o.Choices, Tokens: int64(o.Tokens), Problem: o.Problem,
				Adapter: o.Adapter, Tag: o.Tag, InTexts: o.InTexts,
			})
			switch {
			case i > 0:
			case o.Name == "width":
				p.DefaultWidthPx, p.SizeMultiplePx = int32(o.Default.Int), int32(o.Multiple)
			case o.Name == "height":
				p.DefaultHeightPx = int32(o.Default.Int)
			case o.Name == "prompt":
				p.MaxTokens = int32(o.Tokens)
			case o.Name == "sampler":
				p.Samplers, p.DefaultSampler, p.SamplerProblem = o.Choices, o.Default.Text, o.Problem
			}
		}
		p.Tasks = append(p.Tasks, t)
	}
	return p
}

// stageProto is what a model's first recipe always needs of a stage; of an adapter without one, all that it has there.
func stageProto(m fleet.Model, kind stage.Kind) *triptychv1alpha1.ModelStage {
	p := &triptychv1alpha1.ModelStage{Stage: kind.String()}
	needed := map[string]bool{}
	if len(m.Recipes) > 0 {
		for _, t := range m.Recipes[0].For(func(string) bool { return false }) {
			for _, c := range t.Components() {
				needed[c] = true
			}
		}
	}
	var identities []string
	for _, c := range m.Components {
		if c.Kind == kind && (needed[c.Name] || len(m.Recipes) == 0) {
			p.WeightsBytes += c.WeightsBytes
			if c.Identity != "" {
				identities = append(identities, c.Identity)
			}
		}
	}
	p.Identity = strings.Join(identities, ",")
	return p
}
