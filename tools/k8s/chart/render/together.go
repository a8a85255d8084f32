package main

import (
	"fmt"
)

// together checks that the objects of one release fit each other: each is there once, and what one names another is.
func together(all []*checked) (problems []string) {
	there := map[string]*checked{}
	for _, o := range all {
		key := o.kind + " " + o.name
		if there[key] != nil {
			problems = append(problems, key+" is there twice")
		}
		there[key] = o
	}
	need := func(o *checked, kind, name string) {
		if name != "" && there[kind+" "+name] == nil {
			problems = append(problems, fmt.Sprintf("%s %s names the %s %s, which is not there", o.kind, o.name, kind, name))
		}
	}
	matched := func(o *checked, selector map[string]any) {
		for _, other := range all {
			if labels := podLabels(other); labels != nil && selects(selector, labels) {
				return
			}
		}
		problems = append(problems, fmt.Sprintf("%s %s selects %v, which no pod has", o.kind, o.name, selector))
	}
	scaled := map[string]string{}
	for _, o := range all {
		spec := at(o.fields, "spec")
		switch o.kind {
		case "Service":
			matched(o, at(spec, "selector"))
			problems = append(problems, ports(o, all)...)
		case "PodDisruptionBudget":
			matched(o, at(spec, "selector", "matchLabels"))
		case "NetworkPolicy":
			matched(o, at(spec, "podSelector", "matchLabels"))
		case "PodMonitor":
			matched(o, at(spec, "selector", "matchLabels"))
		case "Deployment":
			if selector := at(spec, "selector", "matchLabels"); !selects(selector, podLabels(o)) {
				problems = append(problems, fmt.Sprintf("Deployment %s selects %v, which its own pods have not", o.name, selector))
			}
		case "HorizontalPodAutoscaler", "ScaledObject":
			target := at(spec, "scaleTargetRef")
			kind, name := word(target["kind"]), word(target["name"])
			if kind == "" {
				kind = "Deployment"
			}
			need(o, kind, name)
			if d := there[kind+" "+name]; d != nil && at(d.fields, "spec")["replicas"] != nil {
				problems = append(problems, fmt.Sprintf("%s %s has replicas, which %s %s owns", kind, name, o.kind, o.name))
			}
			if by := scaled[name]; by != "" {
				problems = append(problems, fmt.Sprintf("%s %s is scaled by two: %s and %s %s", kind, name, by, o.kind, o.name))
			}
			scaled[name] = o.kind + " " + o.name
		}
		pod := o.pod()
		for _, claim := range list(pod["resourceClaims"]) {
			need(o, "ResourceClaimTemplate", word(claim["resourceClaimTemplateName"]))
		}
	}
	return append(problems, overlapping(all)...)
}

// overlapping finds Deployments that select each other's pods: each would delete what it takes for its own.
func overlapping(all []*checked) (problems []string) {
	for _, d := range all {
		for _, other := range all {
			if d.kind == "Deployment" && other != d && other.kind == "Deployment" &&
				selects(at(d.fields, "spec", "selector", "matchLabels"), podLabels(other)) {
				problems = append(problems, fmt.Sprintf("Deployment %s selects the pods of Deployment %s", d.name, other.name))
			}
		}
	}
	return problems
}

// ports checks that every port of a Service is one of a pod behind it.
func ports(service *checked, all []*checked) (problems []string) {
	for _, port := range list(at(service.fields, "spec")["ports"]) {
		target := port["targetPort"]
		if target == nil {
			target = port["port"]
		}
		found := false
		for _, o := range all {
			if labels := podLabels(o); labels == nil || !selects(at(service.fields, "spec", "selector"), labels) {
				continue
			}
			for _, c := range list(o.pod()["containers"]) {
				for _, p := range list(c["ports"]) {
					found = found || fmt.Sprint(target) == fmt.Sprint(p["name"]) || fmt.Sprint(target) == fmt.Sprint(p["containerPort"])
				}
			}
		}
		if !found {
			problems = append(problems, fmt.Sprintf("Service %s leads to port %v, which no pod behind it has", service.name, target))
		}
	}
	return problems
}

// podLabels are the labels of an object's pods, or nil if it has none.
func podLabels(o *checked) map[string]any {
	switch {
	case o.pod() == nil:
		return nil
	case o.kind == "Pod":
		return at(o.fields, "metadata", "labels")
	}
	return at(o.fields, "spec", "template", "metadata", "labels")
}

// selects tells whether labels have all of a selector. One that is empty selects all.
func selects(selector, labels map[string]any) bool {
	for key, value := range selector {
		if labels[key] != value {
			return false
		}
	}
	return true
}
