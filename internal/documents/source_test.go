package documents

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// What the program has is read from its sources, wherever in them it is declared.

var parsed map[string]*ast.File

// sources are the Go files of the checkout that are not tests, below a folder.
func sources(t *testing.T, below string) map[string]*ast.File {
	t.Helper()
	if parsed == nil {
		parsed = map[string]*ast.File{}
		for _, name := range files(t, ".go") {
			if strings.HasSuffix(name, "_test.go") || strings.HasPrefix(name, "test/") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, read(t, name), 0)
			if err != nil {
				t.Fatal(err)
			}
			parsed[name] = f
		}
	}
	some := map[string]*ast.File{}
	for name, f := range parsed {
		if strings.HasPrefix(name, below) {
			some[name] = f
		}
	}
	return some
}

// inspect visits the nodes of a kind in the sources below a folder.
func inspect[N ast.Node](t *testing.T, below string, visit func(N)) {
	t.Helper()
	for _, f := range sources(t, below) {
		ast.Inspect(f, func(n ast.Node) bool {
			if node, ok := n.(N); ok {
				visit(node)
			}
			return true
		})
	}
}

// text is the value of a string literal; "" for anything else.
func text(e ast.Expr) string {
	if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.STRING {
		if s, err := strconv.Unquote(literal.Value); err == nil {
			return s
		}
	}
	return ""
}

func sorted(list []string) []string {
	slices.Sort(list)
	return slices.Compact(list)
}

// constants are the values of the string constants of a type of that name.
func constants(t *testing.T, typeName string) []string {
	t.Helper()
	var list []string
	inspect(t, "", func(spec *ast.ValueSpec) {
		if of, ok := spec.Type.(*ast.Ident); ok && of.Name == typeName {
			for _, v := range spec.Values {
				if s := text(v); s != "" {
					list = append(list, s)
				}
			}
		}
	})
	return sorted(list)
}

// statuses are the numbers that functions called ExitStatus return, and those of the
// constants exit... of the program.
func statuses(t *testing.T) []string {
	t.Helper()
	var list []string
	number := func(e ast.Expr) {
		if literal, ok := e.(*ast.BasicLit); ok && literal.Kind == token.INT {
			list = append(list, literal.Value)
		}
	}
	inspect(t, "", func(f *ast.FuncDecl) {
		if f.Name.Name != "ExitStatus" {
			return
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if r, ok := n.(*ast.ReturnStmt); ok && len(r.Results) == 1 {
				number(r.Results[0])
			}
			return true
		})
	})
	inspect(t, "cmd/autofs-restore-hook/", func(spec *ast.ValueSpec) {
		for i, name := range spec.Names {
			if strings.HasPrefix(name.Name, "exit") && i < len(spec.Values) {
				number(spec.Values[i])
			}
		}
	})
	return sorted(list)
}

// flags are the options that a program defines with package flag or pflag.
func flags(t *testing.T, folder string) []string {
	t.Helper()
	var list []string
	inspect(t, folder, func(call *ast.CallExpr) {
		method, ok := call.Fun.(*ast.SelectorExpr)
		if !ok || !regexp.MustCompile(`^(Bool|String|Int|Duration|Text|Func)(Slice)?(Var)?P?$`).MatchString(method.Sel.Name) {
			return
		}
		for _, arg := range call.Args[:min(2, len(call.Args))] {
			if name := text(arg); name != "" {
				list = append(list, "--"+name)
				break
			}
		}
	})
	if len(list) == 0 {
		t.Errorf("%s: no options found", folder)
	}
	return sorted(list)
}

// record is a struct type in JSON: the type name of each field, of its elements for a
// list.
type record map[string]string

func (r record) names() []string { return slices.Sorted(maps.Keys(r)) }

// fields reads the struct types of that name below a folder, as JSON has them.
func fields(t *testing.T, below, typeName string) record {
	t.Helper()
	r := record{}
	inspect(t, below, func(spec *ast.TypeSpec) {
		s, ok := spec.Type.(*ast.StructType)
		if !ok || spec.Name.Name != typeName {
			return
		}
		for _, f := range s.Fields.List {
			if f.Tag == nil {
				continue
			}
			name, _, _ := strings.Cut(reflect.StructTag(strings.Trim(f.Tag.Value, "`")).Get("json"), ",")
			if name != "" && name != "-" {
				r[name] = nameOf(f.Type)
			}
		}
	})
	if len(r) == 0 {
		t.Errorf("%s: no type %s with JSON fields found", below, typeName)
	}
	return r
}

// nameOf is the name of a type, of its elements for a list, without its package.
func nameOf(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.ArrayType:
		return nameOf(e.Elt)
	case *ast.StarExpr:
		return nameOf(e.X)
	case *ast.SelectorExpr:
		return e.Sel.Name
	case *ast.Ident:
		return e.Name
	}
	return ""
}

// metrics are the names in the agent's sources that import the Prometheus client.
func metrics(t *testing.T) []string {
	t.Helper()
	name := regexp.MustCompile(`^[a-z]+(_[a-z]+)+$`)
	var list []string
	for _, f := range sources(t, "agent/") {
		if !slices.ContainsFunc(f.Imports, func(i *ast.ImportSpec) bool {
			return strings.HasSuffix(text(i.Path), "client_golang/prometheus")
		}) {
			continue
		}
		ast.Inspect(f, func(n ast.Node) bool {
			if e, ok := n.(ast.Expr); ok && name.MatchString(text(e)) && text(e) != metricPrefix {
				list = append(list, text(e))
			}
			return true
		})
	}
	return sorted(list)
}

// recoveries are the operations of the table of recoveries, in its order.
func recoveries(t *testing.T) []string {
	t.Helper()
	var list []string
	inspect(t, "hook/", func(spec *ast.ValueSpec) {
		if len(spec.Names) != 1 || spec.Names[0].Name != "recoveries" || len(spec.Values) != 1 {
			return
		}
		all, ok := spec.Values[0].(*ast.CompositeLit)
		if !ok {
			return
		}
		for _, e := range all.Elts {
			if row, ok := e.(*ast.CompositeLit); ok && len(row.Elts) > 1 {
				list = append(list, operation(row.Elts[0])+": "+operation(row.Elts[1]))
			}
		}
	})
	return list
}

// operation is a literal or a name, with its key or without.
func operation(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.KeyValueExpr:
		return operation(e.Value)
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return text(e)
}
